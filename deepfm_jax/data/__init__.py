"""From raw rows to batches: sources, encoder, TFDS builders, input pipeline."""
