"""From a name and hyperparameters to a model, strictly."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from deepfm_jax.errors import UserError
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.fm import FM
from deepfm_jax.models.lr import LR

MODELS: dict[str, type[nn.Module]] = {"lr": LR, "fm": FM, "deepfm": DeepFM}


def build_model(
    name: str, field_dims: Sequence[int], hyperparameters: Mapping[str, Any]
) -> nn.Module:
    """The model ``name`` of ``MODELS`` for a table of ``field_dims``.

    Raises:
      UserError: an unknown name, or a hyperparameter that the model does not have; a misspelt
        one never turns into the default.
    """
    if name not in MODELS:
        raise UserError(f"model.name={name!r} is unknown; use one of {sorted(MODELS)}")
    known = {field.name for field in dataclasses.fields(MODELS[name])}
    known -= {"field_dims", "parent", "name"}
    for key in hyperparameters:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {sorted(known)}"
            raise UserError(f"model.{key}: {name} has no such hyperparameter; {hint}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in hyperparameters.items()}
    return MODELS[name](field_dims=tuple(field_dims), **options)
