"""Dataclasses as plain data for JSON, and back, strictly."""

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deepfm_jax.errors import UserError

# Of a value that an annotation does not allow.
_UNFIT = object()
_SCALARS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def to_data(item: Any) -> Any:
    """A dataclass as data of JSON, with all of its fields; tuples become lists."""
    if dataclasses.is_dataclass(item):
        return {each.name: to_data(getattr(item, each.name)) for each in dataclasses.fields(item)}
    if isinstance(item, Mapping):
        return {key: to_data(value) for key, value in item.items()}
    return [to_data(each) for each in item] if isinstance(item, list | tuple) else item


def from_data(kind: Any, options: Any, where: str) -> Any:
    """A dataclass from data of JSON, whose lists become tuples.

    Fields may be annotated with ``int``, ``float``, ``bool``, ``str``, ``None``, ``Any``,
    ``Literal``, dataclasses, and unions, tuples, sequences and mappings of these. A whole number
    serves as a ``float``, and becomes one; nothing else is converted.

    Args:
      kind: The dataclass.
      options: Its fields by name; those left out have their defaults.
      where: What it is, for messages, as ``column 'price'`` or ``optimizer``.

    Raises:
      UserError: ``options`` is not an object, has a field that does not exist or a value of another
        type, or lacks a field that has no default.
    """
    if not isinstance(options, Mapping):
        raise UserError(f"{where}: {options!r} must be an object")
    hints = get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind) if each.init}
    found = {}
    for key, value in options.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(fields)}"
            raise UserError(f"{where} has no option {key!r}; {hint}")
        found[key] = _read(value, hints[key], f"{where}.{key}")
        if found[key] is _UNFIT:
            raise UserError(f"{where}: {key}={value!r} must be {_describe(hints[key])}")
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in options:
            raise UserError(f"{where} needs {name}, {_describe(hints[name])}")
    return kind(**found)


def _read(value: Any, hint: Any, where: str) -> Any:
    """The value as its annotation has it, or ``_UNFIT``."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, Union):
        found = (_read(value, each, where) for each in args)
        return next((each for each in found if each is not _UNFIT), _UNFIT)
    if origin is Literal:
        # True is 1 in Python.
        return next((each for each in args if (each, type(each)) == (value, type(value))), _UNFIT)
    if origin in (tuple, list, Sequence):
        return _read_list(value, args, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            return _UNFIT
        read = {k: _read(each, args[1], f"{where}.{k}") for k, each in value.items()}
        unfit = any(each is _UNFIT for each in read.values())
        return _UNFIT if unfit or not all(isinstance(key, args[0]) for key in read) else read
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_data(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind: Any = hint
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    return value if fits else _UNFIT


def _read_list(value: Any, args: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        return _UNFIT
    hints = args if _has_length(args) else (args[0],) * len(value)
    if len(hints) != len(value):
        return _UNFIT
    pairs = enumerate(zip(value, hints, strict=True))
    read = tuple(_read(each, hint, f"{where}[{place}]") for place, (each, hint) in pairs)
    return _UNFIT if any(each is _UNFIT for each in read) else read


def _has_length(args: tuple[Any, ...]) -> bool:
    """Whether the arguments of a list's annotation say how many elements it has."""
    return len(args) > 1 and args[-1] is not ...


def _describe(hint: Any) -> str:
    """What an annotation allows."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (types.UnionType, Union):
        return " or ".join(map(_describe, args))
    if origin in (tuple, list, Sequence):
        if _has_length(args):
            return f"a list of {len(args)}: {', '.join(map(_describe, args))}"
        return f"a list, each element {_describe(args[0])}"
    if origin in (dict, Mapping):
        return f"an object, each value {_describe(args[1])}"
    return "an object" if dataclasses.is_dataclass(hint) else _SCALARS.get(hint, str(hint))
