"""Sessions on Cloud TPU slices; they need a clone, whose last commit they install on the slice."""
