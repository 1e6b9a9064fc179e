"""State, step, loop, checkpoint and evaluation: what turns batches into a trained model."""
