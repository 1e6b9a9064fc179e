"""Typed columns to ids and values: vocabularies, hashing, lists, crosses, extension."""
