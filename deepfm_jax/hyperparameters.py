"""Builds models and heads by name, and checks the values of their hyperparameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import flax.linen as nn

from deepfm_jax.dataclass_data import UNFIT, describe, read
from deepfm_jax.errors import UserError, suggest

T = TypeVar("T", bound=nn.Module)

# Attributes that the data and Flax set.
_GIVEN = frozenset({"field_dims", "tasks", "parent", "name"})


def build_module(
    classes: Mapping[str, type[T]],
    where: str,
    name: str,
    hyperparameters: Mapping[str, Any],
    **given: Any,
) -> T:
    """Builds a model or a head by name; unknown hyperparameters are errors.

    Args:
      classes: Classes by the names used in configs.
      where: ``"model"`` or ``"head"``, for messages.
      name: A key of ``classes``.
      hyperparameters: Attributes of the module; omitted ones keep their defaults.
      **given: Attributes that the data determine.

    Raises:
      UserError: the name or a hyperparameter is unknown, or a value is not allowed (see
        ``check_hyperparameters``).
    """
    if not isinstance(name, str) or name not in classes:
        raise UserError(f"{where}.name={name!r} is unknown; use one of {sorted(classes)}")
    hints = _hyperparameters(classes[name])
    for key in hyperparameters:
        if key not in hints:
            hint = suggest(key, sorted(hints))
            raise UserError(f"{where}.{key}: {name} has no such hyperparameter; {hint}")
    options = {key: _read(value, hints[key], where, key) for key, value in hyperparameters.items()}
    module = classes[name](**given, **options)
    check_hyperparameters(module, where)
    return module


def check_hyperparameters(module: nn.Module, where: str = "model") -> None:
    """Checks all hyperparameters of a model or a head, used or not, by their annotations.

    If hyperparameters must fit each other or the data, the module defines a method
    ``check_together`` that raises UserError otherwise.

    Args:
      module: A module, bound or not.
      where: ``"model"`` or ``"head"``, for messages.

    Raises:
      UserError: an annotation does not allow a value; the message names the hyperparameter, its
        value, and what is allowed.
    """
    for key, hint in _hyperparameters(type(module)).items():
        _read(getattr(module, key), hint, where, key)
    if hasattr(type(module), "check_together"):
        module.check_together()  # pyright: ignore[reportAttributeAccessIssue]


def _hyperparameters(kind: type[nn.Module]) -> dict[str, Any]:
    """The annotations of a class's hyperparameters."""
    hints = get_type_hints(kind, include_extras=True)
    fields = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return {field.name: hints[field.name] for field in fields if field.name not in _GIVEN}


def _read(value: Any, hint: Any, where: str, key: str) -> Any:
    found = read(value, hint, f"{where}.{key}")
    if found is UNFIT:
        raise UserError(f"{where}.{key}={value!r} must be {describe(hint)}")
    return found
