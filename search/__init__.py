"""The search loop and the command line."""
