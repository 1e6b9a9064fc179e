"""Encodes typed columns as ids and values: fits, extends and applies an encoder."""
