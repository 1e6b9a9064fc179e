"""Raw cells, text or not, to typed arrays: numbers, categories, times, lists, vectors."""
