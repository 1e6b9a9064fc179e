"""Converts dataclasses to plain data for JSON and back, checking values by their annotations.

Annotations may be ``int``, ``float``, ``bool``, ``str``, ``None``, ``Any``, ``Literal``,
dataclasses, the types with a range in ``annotations``, and unions, tuples, sequences and mappings
of these. A ``float`` may be given as a whole number, and must be finite; text is never parsed as a
number or a bool.
"""

import dataclasses
import math
import numbers
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from deepfm_jax.errors import UserError, suggest

# What ``read`` returns for a value that its annotation does not allow.
UNFIT = object()
_SCALARS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a string",
    type(None): "null",
    Any: "anything",
}
_NUMBERS: dict[Any, type] = {int: numbers.Integral, float: numbers.Real}


def to_data(item: Any) -> Any:
    """Converts a dataclass, with all of its fields, to data for JSON; tuples become lists."""
    if dataclasses.is_dataclass(item):
        return {each.name: to_data(getattr(item, each.name)) for each in dataclasses.fields(item)}
    if isinstance(item, Mapping):
        return {key: to_data(value) for key, value in item.items()}
    return [to_data(each) for each in item] if isinstance(item, list | tuple) else item


def from_data(kind: Any, options: Any, where: str) -> Any:
    """Creates a dataclass from JSON data.

    Args:
      kind: The dataclass.
      options: Its fields by name; omitted fields have their defaults.
      where: Its description in messages, such as ``column 'price'`` or ``optimizer``.

    Raises:
      UserError: ``options`` is not an object, has an unknown field or a value that the field's
        annotation does not allow, or lacks a field without a default.
    """
    if not isinstance(options, Mapping):
        raise UserError(f"{where}: {options!r} must be an object")
    hints = get_type_hints(kind, include_extras=True)
    fields = {each.name: each for each in dataclasses.fields(kind) if each.init}
    found = {}
    for key, value in options.items():
        if key not in fields:
            raise UserError(f"{where} has no option {key!r}; {suggest(key, fields)}")
        found[key] = read(value, hints[key], f"{where}.{key}")
        if found[key] is UNFIT:
            raise UserError(f"{where}: {key}={value!r} must be {describe(hints[key])}")
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in options:
            raise UserError(f"{where} needs {name}, {describe(hints[name])}")
    return kind(**found)


def check_values(item: Any, prefix: str = "") -> None:
    """Checks the values of a dataclass, and of nested dataclasses, by their annotations.

    Args:
      item: The dataclass.
      prefix: Prefix of field names in messages, such as ``"pretraining."``.

    Raises:
      UserError: the annotation of a field does not allow its value.
    """
    hints = get_type_hints(type(item), include_extras=True)
    for field in dataclasses.fields(item):
        value, key = getattr(item, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check_values(value, f"{key}.")
        elif read(value, hints[field.name], key) is UNFIT:
            raise UserError(f"{key}={value!r} must be {describe(hints[field.name])}")
        if isinstance(value, Mapping):
            for name, each in value.items():
                if dataclasses.is_dataclass(each):
                    check_values(each, f"{key}.{name}.")


def read(value: Any, hint: Any, where: str) -> Any:
    """Converts a value to the type of its annotation; returns ``UNFIT`` if it does not fit.

    Lists become tuples, NumPy scalars become Python scalars, and mappings become dataclasses if the
    annotation asks for one.

    Args:
      value: Any value.
      hint: The annotation.
      where: Description of nested dataclasses in messages.

    Raises:
      UserError: see ``from_data``, for a nested dataclass.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        found = read(value, args[0], where)
        fits = found is not UNFIT and all(constraint.holds(found) for constraint in args[1:])
        return found if fits else UNFIT
    if origin in (types.UnionType, Union):
        found = (read(value, each, where) for each in args)
        return next((each for each in found if each is not UNFIT), UNFIT)
    if origin is Literal:
        # Compared with the type, because True equals 1 in Python.
        return next((each for each in args if (each, type(each)) == (value, type(value))), UNFIT)
    if origin in (tuple, list, Sequence):
        return _read_list(value, args, where)
    if origin in (dict, Mapping):
        return _read_mapping(value, args, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_data(hint, value, where)
    return _read_scalar(value, hint)


def _read_scalar(value: Any, hint: Any) -> Any:
    is_bool = isinstance(value, bool | np.bool_)
    if hint in _NUMBERS:
        # A bool is a whole number in Python.
        is_number = isinstance(value, _NUMBERS[hint]) and not is_bool and math.isfinite(value)
        return hint(value) if is_number else UNFIT
    if hint is bool:
        return bool(value) if is_bool else UNFIT
    return value if isinstance(value, hint) else UNFIT


def _read_list(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        return UNFIT
    hints = args if _has_length(args) else (args[0],) * len(value)
    if len(hints) != len(value):
        return UNFIT
    pairs = enumerate(zip(value, hints, strict=True))
    items = tuple(read(each, hint, f"{where}[{place}]") for place, (each, hint) in pairs)
    return UNFIT if any(each is UNFIT for each in items) else items


def _read_mapping(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, Mapping):
        return UNFIT
    found = {key: read(each, args[1], f"{where}.{key}") for key, each in value.items()}
    fits = all(isinstance(key, args[0]) and each is not UNFIT for key, each in found.items())
    return found if fits else UNFIT


def _has_length(args: tuple[Any, ...]) -> bool:
    """Whether a list's annotation specifies its length."""
    return len(args) > 1 and args[-1] is not ...


def describe(hint: Any) -> str:
    """Describes what an annotation allows, as it follows "must be" in a message."""
    conditions = ""
    if get_origin(hint) is Annotated:
        hint, *constraints = get_args(hint)
        conditions = "".join(each.text for each in constraints)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin in (types.UnionType, Union):
        return " or ".join(map(describe, args))
    if origin in (tuple, list, Sequence):
        if _has_length(args):
            return f"a list of {len(args)}: {', '.join(map(describe, args))}"
        return f"a list{conditions}, each item {describe(args[0])}"
    if origin in (dict, Mapping):
        return f"an object, each value {describe(args[1])}"
    kind = "an object" if dataclasses.is_dataclass(hint) else _SCALARS.get(hint, str(hint))
    return kind + conditions
