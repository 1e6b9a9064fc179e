"""One interaction per file; a layer knows no table and no batch dict."""

from deepfm_jax.layers.factorization_machine import factorization_machine
from deepfm_jax.layers.mlp import MLP

__all__ = ["MLP", "factorization_machine"]
