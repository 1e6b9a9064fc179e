"""Configs as data, each with the header that says what it reproduces."""
