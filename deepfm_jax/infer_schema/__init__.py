"""A schema from the rows of a file."""
