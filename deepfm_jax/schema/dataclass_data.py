"""The dataclasses of a schema as plain data for JSON, and back, strictly."""

import dataclasses
import difflib
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deepfm_jax.errors import UserError

# Options that came later: they are written where they are set, so that an older schema keeps its
# text, and its encoder the fingerprint.
_LATER = (
    *("max_size", "hash_buckets", "size", "shares_with", "group", "values", "positive", "rank"),
    *("trim", "missing"),
)


def to_data(item: Any) -> dict[str, Any]:
    """A dataclass as data of JSON, without the later options that have their defaults."""
    data = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.name not in _LATER or value != field.default:
            data[field.name] = list(value) if isinstance(value, tuple) else value
    return data


def from_data(kind: Any, options: Any, where: str) -> Any:
    """A dataclass from data of JSON, whose lists are its tuples.

    Args:
      kind: The dataclass.
      options: Its fields by name; those left out have their defaults.
      where: What it is, for messages.

    Raises:
      UserError: not an object, a field that does not exist, a value of another type, or a field
        left out that has no default.
    """
    hints = get_type_hints(kind)
    if not isinstance(options, Mapping):
        raise UserError(f"{where}: {options!r} must be an object")
    for key, value in options.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(hints)}"
            raise UserError(f"{where} has no option {key!r}; {hint}")
        if not _fits(value, hints[key]):
            raise UserError(f"{where}: {key}={value!r} must be {_told(hints[key])}")
    for field in dataclasses.fields(kind):
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and field.name not in options:
            raise UserError(f"{where} needs {field.name}, {_told(hints[field.name])}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


_WORDS = {int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) is types.UnionType:
        return any(_fits(value, kind) for kind in kinds)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or (kinds[-1] is not ... and len(value) != 2):
            return False
        return all(_fits(each, kinds[0]) for each in value)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _told(hint: Any) -> str:
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(kinds)}"
    if get_origin(hint) is types.UnionType:
        return " or ".join(map(_told, kinds))
    if get_origin(hint) is tuple:
        return f"a list, of {'each' if kinds[-1] is ... else 'two, each'} {_told(kinds[0])}"
    return _WORDS[hint]
