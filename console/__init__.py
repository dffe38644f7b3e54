"""The operator's doors: the command line."""
