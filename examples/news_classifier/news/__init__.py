"""What training and serving share; a logged model carries a copy of this folder."""
