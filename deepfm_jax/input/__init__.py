"""Batches of prepared examples with tf.data: order, shuffling, sampling and prefetching."""
