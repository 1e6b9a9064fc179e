"""From a name and hyperparameters to a model, strictly."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from deepfm_jax.errors import UserError
from deepfm_jax.features import FieldDims, as_features
from deepfm_jax.models.autoint import AutoInt
from deepfm_jax.models.dcn_v2 import DCNv2
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.dnn import DNN
from deepfm_jax.models.final_mlp import FinalMLP
from deepfm_jax.models.fm import FM
from deepfm_jax.models.fnn import FNN
from deepfm_jax.models.hyperparameters import check_hyperparameters
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
    """The model ``name`` of ``MODELS`` for a table of ``field_dims``.

    Args:
      name: As in ``MODELS``.
      field_dims: Rows of each field, or a ``Feature``.
      hyperparameters: The model's attributes; those left out keep their defaults.

    Raises:
      UserError: an unknown name, impossible fields (see ``features.as_features``), a hyperparameter
        that the model does not have, or a value that it may not have (see
        ``check_hyperparameters``).
    """
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f"model.name={name!r} is unknown; use one of {sorted(MODELS)}")
    known = {field.name for field in dataclasses.fields(MODELS[name])}
    known -= {"field_dims", "parent", "name"}
    for key in hyperparameters:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {sorted(known)}"
            raise UserError(f"model.{key}: {name} has no such hyperparameter; {hint}")
    model = MODELS[name](field_dims=as_features(field_dims), **hyperparameters)
    check_hyperparameters(model)
    return model
