"""Builds models and heads by name, and checks their hyperparameters."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import flax.linen as nn
import numpy as np

from deepfm_jax.errors import UserError

T = TypeVar("T", bound=nn.Module)


class _Range(NamedTuple):
    """A range of numbers, with the words that describe it after the kind of number."""

    description: str
    contains: Callable[[Any], bool]


# Attributes that the data or Flax set.
_GIVEN = ("field_dims", "tasks", "parent", "name")

_ANY = _Range("", lambda number: True)
_AT_LEAST_0 = _Range(" of at least 0", lambda number: number >= 0)
_AT_LEAST_1 = _Range(" of at least 1", lambda number: number >= 1)

# By name, the range of a number, or of each number of a list. Other names are checked only by their
# annotation.
_RANGES = {
    "embed_dim": _AT_LEAST_1,
    "mlp_dims": _AT_LEAST_1,
    "second_mlp_dims": _AT_LEAST_1,
    "gate_dims": _AT_LEAST_1,
    "cin_dims": _AT_LEAST_1,
    "context": _AT_LEAST_0,
    "second_context": _AT_LEAST_0,
    "attention_layers": _AT_LEAST_1,
    "heads": _AT_LEAST_1,
    "head_dim": _AT_LEAST_1,
    "cross_layers": _AT_LEAST_0,
    "rank": _AT_LEAST_0,
    "experts": _AT_LEAST_1,
    "dropout": _Range(", at least 0 and below 1", lambda share: 0 <= share < 1),
    # With 0, the vectors of a factorization machine have no gradient and stay 0.
    "init_std": _Range(" above 0", lambda std: std > 0),
}
# Choices of strings that all models share; a model annotates its own as ``Literal``.
_CHOICES = {
    "table_dtype": Literal["float32", "bfloat16"],
    "compute_dtype": Literal["float32", "bfloat16", "auto"],
}
# Lists that must not be empty, and lists that must not have duplicates.
_NOT_EMPTY = frozenset({"products"})
_UNIQUE = frozenset({"products", "context", "second_context"})

_NUMBERS = {int: (int, np.integer), float: (int, float, np.integer, np.floating)}
_KINDS = {bool: (bool, np.bool_), str: (str,)}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def build_module(
    classes: Mapping[str, type[T]],
    where: str,
    name: str,
    hyperparameters: Mapping[str, Any],
    **given: Any,
) -> T:
    """Builds a model or a head by its name, with strict checks.

    Args:
      classes: Classes by the names used in configs.
      where: ``"model"`` or ``"head"``, for messages.
      name: A key of ``classes``.
      hyperparameters: Attributes of the module; missing ones keep their defaults.
      **given: Attributes that the data determine.

    Raises:
      UserError: the name or a hyperparameter is unknown, or a value is invalid (see
        ``check_hyperparameters``).
    """
    if not isinstance(name, str) or name not in classes:
        raise UserError(f"{where}.name={name!r} is unknown; use one of {sorted(classes)}")
    known = {field.name for field in dataclasses.fields(classes[name])}  # pyright: ignore[reportArgumentType]
    known -= {*_GIVEN, *given}
    for key in hyperparameters:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {sorted(known)}"
            raise UserError(f"{where}.{key}: {name} has no such hyperparameter; {hint}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in hyperparameters.items()}
    module = classes[name](**given, **options)
    check_hyperparameters(module, where)
    return module


def check_hyperparameters(module: nn.Module, where: str = "model") -> None:
    """Checks the hyperparameters of a model or a head, whether they have an effect or not.

    A module whose hyperparameters must fit each other or the data has a method ``check_together``
    that raises if they do not.

    Args:
      module: A bound or unbound module. Each attribute that the data do not determine is checked by
        its annotation, and by its name if it is listed here. Whole numbers may be NumPy's and lists
        may be tuples; strings are never parsed as numbers or bools.
      where: ``"model"`` or ``"head"``, for messages.

    Raises:
      UserError: a hyperparameter has another type, or is out of its range or choices; the message
        gives its name, its value and the values that are allowed.
    """
    for key, annotated in get_type_hints(type(module)).items():
        if key in _GIVEN or get_origin(annotated) is ClassVar:
            continue
        hint, value = _CHOICES.get(key, annotated), getattr(module, key)
        if not _fits(key, value, hint):
            raise UserError(f"{where}.{key}={value!r} must be {_describe(key, hint)}")
    if hasattr(type(module), "check_together"):
        module.check_together()


def _fits(key: str, value: Any, hint: Any) -> bool:
    if get_origin(hint) is Sequence:
        (item,) = get_args(hint)
        return (
            isinstance(value, list | tuple)
            and all(_fits(key, each, item) for each in value)
            and not (key in _NOT_EMPTY and not value)
            and not (key in _UNIQUE and len(set(value)) < len(value))
        )
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint in _NUMBERS:
        # A bool is an int to Python.
        is_number = isinstance(value, _NUMBERS[hint]) and not isinstance(value, bool)
        return is_number and abs(value) < math.inf and _RANGES.get(key, _ANY).contains(value)
    return hint not in _KINDS or isinstance(value, _KINDS[hint])


def _describe(key: str, hint: Any) -> str:
    if get_origin(hint) is Sequence:
        least = " of at least one item" if key in _NOT_EMPTY else ""
        unique = ", without duplicates" if key in _UNIQUE else ""
        return f"a list{least}, each {_describe(key, get_args(hint)[0])}{unique}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return _WORDS[hint] + (_RANGES.get(key, _ANY).description if hint in _NUMBERS else "")
