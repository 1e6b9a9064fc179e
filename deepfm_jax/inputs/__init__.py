"""Turns table rows and dense numbers into first-order terms and embeddings; one encoder per file.

To add an encoder, subclass ``InputEncoder`` in its own file and add it to ``ENCODERS``. A field
selects it with ``Feature.pooling``.
"""

from deepfm_jax.inputs.encoder import InputEncoder
from deepfm_jax.inputs.inputs import ENCODERS, Fields, Inputs

__all__ = ["ENCODERS", "Fields", "InputEncoder", "Inputs"]
