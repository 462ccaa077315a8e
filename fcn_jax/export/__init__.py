"""Networks for use without this project."""
