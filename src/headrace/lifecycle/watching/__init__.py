"""The watch: which window is due, what was said of it, and what follows."""
