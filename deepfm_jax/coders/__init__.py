"""Turns the typed values of one field into ids and values: vocabularies, hashes, quantiles."""
