"""Completes a recipe's settings with all defaults, so that a flag can set every key.

A flag ``--config.KEY`` reaches only keys that the config has. A recipe names the keys that it
changes; ``complete`` adds the rest from the dataclasses and models that define them.
"""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict, config_dict

from deepfm_jax.heads import HEADS
from deepfm_jax.models import MODELS
from deepfm_jax.training.settings import Experiment

# Attributes of models and heads that come from the data and from Flax.
_GIVEN = ("field_dims", "tasks", "parent", "name")
_CLASSES = {"model": MODELS, "head": HEADS}


def complete(**sections: Any) -> ConfigDict:
    """Builds the config of a run from the given settings and the defaults of all others.

    Args:
      **sections: Sections of ``Experiment``: ``data``, ``model``, ``optimizer`` and so on.
    """
    return ConfigDict(_completed(Experiment, sections))


def _completed(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    hints, found = get_type_hints(kind), dict(given)
    for field in dataclasses.fields(kind):
        value = found.get(field.name, _default(field))
        if field.name in _CLASSES and kind.__name__ in ("Experiment", "Pretraining"):
            value = _of_class(_CLASSES[field.name], value)
        elif nested := _dataclass_in(hints[field.name]):
            value = _nested(nested, value)
        elif not value and _allows_text(hints[field.name]):
            value = ""  # Text for a list or keyword arguments, because a flag cannot add keys.
        elif value is None:
            value = _placeholder(hints[field.name])
        found[field.name] = value
    return found


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _of_class(classes: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the defaults to the hyperparameters of a model or a head; a head may be unnamed."""
    name = given.get("name", "")
    if name not in classes:
        return {"name": name, **given}
    fields = dataclasses.fields(classes[name])
    defaults = {each.name: each.default for each in fields if each.name not in _GIVEN}
    return {"name": name, **defaults, **given}


def _allows_text(hint: Any) -> bool:
    return (
        get_origin(hint) in (UnionType, Union)
        and str in get_args(hint)
        and NoneType not in (get_args(hint))
    )


def _dataclass_in(hint: Any) -> Any:
    """The dataclass that an annotation allows; None if there is none."""
    kinds = [hint, *get_args(hint)]
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def _nested(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if dataclasses.is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    # Settings by column are not completed.
    known = {each.name for each in dataclasses.fields(kind)}
    return _completed(kind, value) if set(value) <= known else value


def _placeholder(hint: Any) -> Any:
    """A placeholder that a flag may replace by a number or a text; None if neither is allowed."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return config_dict.placeholder(kinds[0]) if kinds and kinds[0] in (int, float, str) else None
