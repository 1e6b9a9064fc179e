"""Typed values of one field to ids and values: vocabularies, hashes, quantiles, numbers."""
