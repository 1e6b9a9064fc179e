"""Task heads, from the model's output to labels; ``HEADS`` maps names in configs to classes."""

from deepfm_jax.heads.head import Head
from deepfm_jax.heads.one_task import OneTask
from deepfm_jax.heads.registry import HEADS, build_head
from deepfm_jax.heads.shared_bottom import SharedBottom

__all__ = ["HEADS", "Head", "OneTask", "SharedBottom", "build_head"]
