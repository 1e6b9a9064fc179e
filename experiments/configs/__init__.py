"""Recipes: configs as data, each with a header that says what it reproduces."""
