"""Batches of prepared rows by tf.data: order, shuffle, sampling, prefetch."""
