"""Each module here measures one claim side by side with its peers and prints one JSON document."""
