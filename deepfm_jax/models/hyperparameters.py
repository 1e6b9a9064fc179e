"""What the hyperparameters of a model may be: the type of each, its range, its choices."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import flax.linen as nn
import numpy as np

from deepfm_jax.errors import UserError


class _Range(NamedTuple):
    """A range of numbers, and how it is told behind the kind of number."""

    told: str
    holds: Callable[[Any], bool]


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


def check_hyperparameters(model: nn.Module) -> None:
    """Checks a model's hyperparameters, those too that the others leave without effect.

    A model whose hyperparameters must fit each other, or the fields, has a method
    ``check_together`` that raises where they do not.

    Args:
      model: Bound or not. Each attribute but ``field_dims`` (see ``features``) is checked by its
        annotation, and by its name where it is known here. A whole number may be NumPy's and a list
        a tuple; no text is read as a number or as a bool.

    Raises:
      UserError: a hyperparameter of another type, or out of its range or choices; the message names
        it, what it is, and what it may be.
    """
    for key, annotated in get_type_hints(type(model)).items():
        if key in ("field_dims", "parent", "name") or get_origin(annotated) is ClassVar:
            continue
        hint, value = _CHOICES.get(key, annotated), getattr(model, key)
        if not _fits(key, value, hint):
            raise UserError(f"model.{key}={value!r} must be {_told(key, hint)}")
    if hasattr(type(model), "check_together"):
        model.check_together()


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
