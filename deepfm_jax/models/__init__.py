"""One short file per paper; ``MODELS`` maps the names used in configs to the classes."""

from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.fm import FM
from deepfm_jax.models.lr import LR
from deepfm_jax.models.registry import MODELS, build_model

__all__ = ["FM", "LR", "MODELS", "DeepFM", "build_model"]
