"""deepfm_jax: click-through-rate models in JAX and Flax.

Import preparation, training and serving by name (``deepfm_jax.training``, ...); this package itself
does not import TensorFlow.
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
    """Imports the columns and the schema, and with them pyarrow, on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("deepfm_jax.schema"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
