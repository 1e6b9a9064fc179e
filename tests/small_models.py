"""Every model of ``MODELS``, small enough to train in a test."""

import dataclasses

from deepfm_jax import build_model
from deepfm_jax.features import as_features

_TOWER = {"embed_dim": 3, "mlp_dims": (8,), "dropout": 0.0, "init_std": 0.3}
SMALL = {
    "lr": {},
    "fm": {"embed_dim": 3, "init_std": 0.3},
    "dnn": _TOWER,
    "fnn": _TOWER,
    "pnn": {**_TOWER, "products": ("inner", "outer", "kernel")},
    "wide_deep": _TOWER,
    "deepfm": _TOWER,
    "xdeepfm": {**_TOWER, "cin_dims": (4, 2)},
    "autoint": {**_TOWER, "attention_layers": 2, "head_dim": 2},
    "dcn_v2": {**_TOWER, "cross_layers": 2, "rank": 2, "experts": 2},
    "final_mlp": {**_TOWER, "second_mlp_dims": (4,), "context": (0,), "heads": 2},
}

# Weights alone, vectors alone, both, and both with fewer vectors than weights: crosses have none.
ONE_OF_EACH_KIND_OF_TABLE = ("lr", "dnn", "deepfm", "wide_deep")
EVERY_KIND_OF_ARRAY = "wide_deep"


def small_model(name, field_dims, **changes):
    """Model ``name``; to Wide & Deep the last field is a cross product."""
    features = as_features(field_dims)
    crossed = (*features[:-1], dataclasses.replace(features[-1], crossed=True))
    return build_model(name, crossed, {**SMALL[name], **changes})
