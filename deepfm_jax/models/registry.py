"""From a name and hyperparameters to a model, strictly."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from deepfm_jax.errors import UserError
from deepfm_jax.features import FieldDims, field_specs
from deepfm_jax.models.autoint import AutoInt
from deepfm_jax.models.dcn_v2 import DCNv2
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.dnn import DNN
from deepfm_jax.models.final_mlp import FinalMLP
from deepfm_jax.models.fm import FM
from deepfm_jax.models.fnn import FNN
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.models.lr import LR
from deepfm_jax.models.pnn import PNN
from deepfm_jax.models.wide_deep import WideDeep
from deepfm_jax.models.xdeepfm import XDeepFM

MODELS: dict[str, type[nn.Module]] = {
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


def build_model(
    name: str, field_dims: FieldDims, hyperparameters: Mapping[str, Any], crosses: int = 0
) -> nn.Module:
    """The model ``name`` of ``MODELS`` for a table of ``field_dims``.

    Args:
      name: As in ``MODELS``.
      field_dims: Rows of each field.
      hyperparameters: The model's attributes; those left out keep their defaults.
      crosses: How many of the last fields are cross products. A model that treats them in a way of
        its own is told; to others they are fields like any.

    Raises:
      UserError: an unknown name, impossible fields (see ``features.field_specs``), a hyperparameter
        that the model does not have (a misspelt one never turns into the default), or one that may
        not be what it is (see ``check_hyperparameters``).
    """
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f"model.name={name!r} is unknown; use one of {sorted(MODELS)}")
    known = {field.name for field in dataclasses.fields(MODELS[name])}
    known -= {"field_dims", "parent", "name"}
    told = {"crosses": crosses} if "crosses" in known else {}
    known -= {"crosses"}
    for key in hyperparameters:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {sorted(known)}"
            raise UserError(f"model.{key}: {name} has no such hyperparameter; {hint}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in hyperparameters.items()}
    field_specs(field_dims)
    model = MODELS[name](field_dims=tuple(field_dims), **told, **options)
    check_hyperparameters(model)
    return model
