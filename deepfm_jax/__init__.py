"""deepfm_jax: click-through-rate models in JAX and Flax.

Preparation, training and serving are imported by name (``deepfm_jax.training``, ...), so that this
package costs a researcher no TensorFlow import.
"""

import importlib
from typing import TYPE_CHECKING, Any

from deepfm_jax.errors import UserError
from deepfm_jax.features import Feature
from deepfm_jax.models import (
    DNN,
    FM,
    FNN,
    LR,
    MODELS,
    PNN,
    AutoInt,
    DCNv2,
    DeepFM,
    FinalMLP,
    WideDeep,
    XDeepFM,
    build_model,
)

if TYPE_CHECKING:
    from deepfm_jax.schema import (
        Categorical,
        Cross,
        Group,
        History,
        Ignored,
        Label,
        MultiValued,
        Numeric,
        Schema,
        TextFormat,
        Timestamp,
        Vector,
        Weight,
    )

__all__ = [
    "DNN",
    "FM",
    "FNN",
    "LR",
    "MODELS",
    "PNN",
    "AutoInt",
    "Categorical",
    "Cross",
    "DCNv2",
    "DeepFM",
    "Feature",
    "FinalMLP",
    "Group",
    "History",
    "Ignored",
    "Label",
    "MultiValued",
    "Numeric",
    "Schema",
    "TextFormat",
    "Timestamp",
    "UserError",
    "Vector",
    "Weight",
    "WideDeep",
    "XDeepFM",
    "build_model",
]


def __getattr__(name: str) -> Any:
    """Loads the columns and the schema, and with them pyarrow, where they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("deepfm_jax.schema"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
