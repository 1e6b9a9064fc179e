"""From table rows and dense numbers to first-order terms and embeddings; one encoder a file.

A new encoder is a subclass of ``InputEncoder`` in a file of its own, and an entry in ``ENCODERS``.
A field chooses it by ``Feature.pooling``.
"""

from deepfm_jax.inputs.encoder import InputEncoder
from deepfm_jax.inputs.inputs import ENCODERS, Fields, Inputs

__all__ = ["ENCODERS", "Fields", "InputEncoder", "Inputs"]
