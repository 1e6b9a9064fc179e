"""Training a model on batches: state, step, loop, checkpoint and evaluation."""
