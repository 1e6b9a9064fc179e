"""Builds models by name, with strict checks of their hyperparameters."""

from collections.abc import Mapping
from typing import Any

from deepfm_jax.features import FieldDims, as_features
from deepfm_jax.hyperparameters import build_module
from deepfm_jax.models.autoint import AutoInt
from deepfm_jax.models.dcn_v2 import DCNv2
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.dnn import DNN
from deepfm_jax.models.final_mlp import FinalMLP
from deepfm_jax.models.fm import FM
from deepfm_jax.models.fnn import FNN
from deepfm_jax.models.lr import LR
from deepfm_jax.models.model import Model
from deepfm_jax.models.pnn import PNN
from deepfm_jax.models.wide_deep import WideDeep
from deepfm_jax.models.xdeepfm import XDeepFM

MODELS: dict[str, type[Model]] = {
    "lr": LR,
    "fm": FM,
    "dnn": DNN,
    "fnn": FNN,
    "pnn": PNN,
    "wide_deep": WideDeep,
    "deepfm": DeepFM,
    "xdeepfm": XDeepFM,
    "autoint": AutoInt,
    "dcn_v2": DCNv2,
    "final_mlp": FinalMLP,
}


def build_model(name: str, field_dims: FieldDims, hyperparameters: Mapping[str, Any]) -> Model:
    """Builds the model ``name`` of ``MODELS`` for the fields ``field_dims``.

    Args:
      name: A key of ``MODELS``.
      field_dims: Number of rows of each field, or a ``Feature``.
      hyperparameters: The model's attributes; missing ones keep their defaults.

    Raises:
      UserError: the fields are invalid (see ``features.as_features``), or see
        ``hyperparameters.build_module``.
    """
    return build_module(MODELS, "model", name, hyperparameters, field_dims=as_features(field_dims))
