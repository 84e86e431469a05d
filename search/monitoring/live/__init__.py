"""A run as it goes on: in a terminal, from another terminal, and as a page in a browser."""
