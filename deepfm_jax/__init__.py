"""deepfm_jax: click-through-rate models in JAX and Flax.

The data, training and serving floors are imported by name (``deepfm_jax.data``, ...), so that this
package costs a researcher no TensorFlow import.
"""

from deepfm_jax.errors import UserError
from deepfm_jax.models import FM, LR, MODELS, DeepFM, build_model
from deepfm_jax.schema import Categorical, Ignored, Label, Numeric, Schema, TextFormat

__all__ = [
    "FM",
    "LR",
    "MODELS",
    "Categorical",
    "DeepFM",
    "Ignored",
    "Label",
    "Numeric",
    "Schema",
    "TextFormat",
    "UserError",
    "build_model",
]
