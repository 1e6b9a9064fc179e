"""Models and heads by name, and what their hyperparameters may be."""

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
    """A range of numbers, and how it is told behind the kind of number."""

    told: str
    holds: Callable[[Any], bool]


# Attributes that the data and Flax give a module.
_GIVEN = ("field_dims", "tasks", "parent", "name")

_ANY = _Range("", lambda number: True)
_AT_LEAST_0 = _Range(" of at least 0", lambda number: number >= 0)
_AT_LEAST_1 = _Range(" of at least 1", lambda number: number >= 1)

# By name, the range of a number, or of each number of a list. A name that is not here is checked by
# its annotation alone.
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
    # With 0 the vectors of a factorization machine have no gradient, and stay 0.
    "init_std": _Range(" above 0", lambda std: std > 0),
}
# Texts of few choices that all models share; a model annotates its own as ``Literal``.
_CHOICES = {
    "table_dtype": Literal["float32", "bfloat16"],
    "compute_dtype": Literal["float32", "bfloat16", "auto"],
}
# Lists that may not be empty, and those that may not have an item twice.
_NOT_EMPTY = frozenset({"products"})
_EACH_ONCE = frozenset({"products", "context", "second_context"})

_NUMBERS = {int: (int, np.integer), float: (int, float, np.integer, np.floating)}
_KINDS = {bool: (bool, np.bool_), str: (str,)}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def build_module(
    classes: Mapping[str, type[T]],
    where: str,
    name: str,
    hyperparameters: Mapping[str, Any],
    **given: Any,
) -> T:
    """A model or a head by its name, strictly.

    Args:
      classes: By the names used in configs.
      where: ``"model"`` or ``"head"``, for messages.
      name: Of one of them.
      hyperparameters: Its attributes; those left out keep their defaults.
      **given: Attributes that the data decide.

    Raises:
      UserError: an unknown name or hyperparameter, or a value that it may not have (see
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
    """Checks the hyperparameters of a model or a head, used or not.

    A module whose hyperparameters must fit each other, or the data, has a method
    ``check_together`` that raises where they do not.

    Args:
      module: Bound or not. Each attribute that the data do not decide is checked by its annotation,
        and by its name where it is known here. A whole number may be NumPy's and a list a tuple; no
        text is read as a number or as a bool.
      where: ``"model"`` or ``"head"``, for messages.

    Raises:
      UserError: a hyperparameter of another type, or out of its range or choices; the message names
        it, what it is, and what it may be.
    """
    for key, annotated in get_type_hints(type(module)).items():
        if key in _GIVEN or get_origin(annotated) is ClassVar:
            continue
        hint, value = _CHOICES.get(key, annotated), getattr(module, key)
        if not _fits(key, value, hint):
            raise UserError(f"{where}.{key}={value!r} must be {_told(key, hint)}")
    if hasattr(type(module), "check_together"):
        module.check_together()


def _fits(key: str, value: Any, hint: Any) -> bool:
    if get_origin(hint) is Sequence:
        (item,) = get_args(hint)
        return (
            isinstance(value, list | tuple)
            and all(_fits(key, each, item) for each in value)
            and not (key in _NOT_EMPTY and not value)
            and not (key in _EACH_ONCE and len(set(value)) < len(value))
        )
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint in _NUMBERS:
        # A bool is an int to Python.
        is_number = isinstance(value, _NUMBERS[hint]) and not isinstance(value, bool)
        return is_number and abs(value) < math.inf and _RANGES.get(key, _ANY).holds(value)
    return hint not in _KINDS or isinstance(value, _KINDS[hint])


def _told(key: str, hint: Any) -> str:
    if get_origin(hint) is Sequence:
        least = " of at least one item" if key in _NOT_EMPTY else ""
        twice = ", none twice" if key in _EACH_ONCE else ""
        return f"a list{least}, each {_told(key, get_args(hint)[0])}{twice}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return _WORDS[hint] + (_RANGES.get(key, _ANY).told if hint in _NUMBERS else "")
