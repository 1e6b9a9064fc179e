"""Infers a schema from the rows of a file."""
