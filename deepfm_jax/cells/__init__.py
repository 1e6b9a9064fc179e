"""Converts raw cells to typed arrays: numbers, categories, times, lists, vectors."""
