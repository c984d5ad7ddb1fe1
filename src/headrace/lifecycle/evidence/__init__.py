"""What is found out about a version and checked at every door."""
