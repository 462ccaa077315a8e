"""A page to try a network in a browser."""
