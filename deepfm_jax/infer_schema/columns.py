"""Infers the columns of an unknown table from their names and a sample of their cells."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.lists import is_list
from deepfm_jax.cells.text import as_text, is_text
from deepfm_jax.cells.times import seconds_of_text
from deepfm_jax.errors import UserError
from deepfm_jax.readers.display import plain, shown, shown_names
from deepfm_jax.readers.paths import SourcePath
from deepfm_jax.schema import (
    KINDS,
    Categorical,
    Column,
    Ignored,
    Label,
    MultiValued,
    Numeric,
    Timestamp,
    Vector,
)

_LABELS = ("label", "click", "clicked", "y", "target")
# Texts that mean no and yes.
_PAIRS = (("0", "1"), ("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("-1", "1"))
# Names of columns whose integers identify something instead of counting it.
_WHICH = re.compile(r"(^|_)(id|ids|uid|user|item|code|type|zip|category)($|_)|[a-z]Id$", re.I)
_WHEN = re.compile(r"(^|_)(at|time|timestamp|ts|date|datetime|day|hour)($|_)|[a-z](Time|At)$", re.I)
_LAYOUTS = ("iso", "%Y%m%d", "%Y%m%d%H", "%y%m%d%H", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d")
_FEW_VALUES = 100
_SEVERAL_ROWS = 100
# A column with at least this share of distinct values only identifies rows.
_DISTINCT_SHARE = 0.95
# The separator of lists, and how many more values than cells make a column one of lists.
_SEPARATOR, _LISTS = "|", 0.1
_ALMOST_ALL = 0.99
# Longer vectors take so much space that the user should decide whether to read them.
_LONG_VECTOR = 256
_YEARS = (-2_208_988_800, 4_102_444_800)  # 1900 to 2099
_UNIX = {"unix": (946_684_800, 4_102_444_800), "unix_ms": (946_684_800_000, 4_102_444_800_000)}


def infer_label(path: SourcePath, table: pa.Table, name: str | None) -> tuple[Label, str]:
    """Returns the label of a table, and the reason.

    Args:
      path: Path of the table, for messages.
      table: Sample of the table.
      name: Name of the label; None looks for one.

    Raises:
      UserError: the column does not exist or does not have two values, or no column looks like a
        label.
    """
    if name is None:
        known = {column.lower(): column for column in reversed(table.column_names)}
        guesses = [known[each] for each in _LABELS if each in known]
        for guess in guesses:
            values = _label_values(table[guess].combine_chunks())
            if values is not None:
                return Label(guess, None if values == ("0", "1") else values), "by its name"
        tried = f" ({', '.join(guesses)} does not hold two values)" if guesses else ""
        names = shown_names(table.column_names)
        raise UserError(
            f"{path}: no column looks like a label{tried}; name it with --label=NAME, one of "
            f"{names}"
        )
    if name not in table.column_names:
        names = shown_names(table.column_names, name)
        raise UserError(f"{path}: has no column {name!r} for the label; it has {names}")
    column = table[name].combine_chunks()
    values = _label_values(column)
    if values is None:
        found = pc.unique(as_text(column)).drop_null().to_pylist()
        if len(found) != 2:
            several = ", ".join([*map(plain, found[:5]), *(["..."] if len(found) > 5 else [])])
            raise UserError(
                f"{path}: label {name!r} holds {len(found)} distinct values ({several}), but must "
                "hold two, for no and yes"
            )
        values = tuple(sorted(found))
        reason = f"by --label; {shown(values[1])} is assumed to mean yes, swap the values if not"
        return Label(name, values), reason
    return Label(name, None if values == ("0", "1") else values), "by --label"


def _label_values(column: pa.Array) -> tuple[str, str] | None:
    """The texts of no and yes as the column writes them; None unless it holds a known pair."""
    found = [cell.strip() for cell in pc.unique(as_text(column)).drop_null().to_pylist()]
    for no, yes in _PAIRS:
        written = {cell.lower().removesuffix(".0"): cell for cell in found}
        if set(written) == {no, yes} and len(found) == 2:
            numbers = no == "0"  # 0.0 and 1.0 are read as numbers.
            return ("0", "1") if numbers else (written[no], written[yes])
        if no == "0" and set(written) in ({"0"}, {"1"}):  # The sample has only one class.
            return ("0", "1")
    return None


def infer_column(name: str, column: pa.Array) -> tuple[Column, str]:
    """Infers a column, and returns it with the reason.

    Each kind may first claim the cells (``Column.infer``). The rules below then choose among the
    package's own kinds, because most cells fit several of them.
    """
    claims = (kind.infer(name, column) for kind in KINDS.values())
    known = next((found for found in claims if found is not None), None)
    if known is not None:
        return known
    cells = column.drop_null()
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return Timestamp(name, parts=_parts(column)), "times"
    several = is_list(column.type) and not pa.types.is_map(column.type)
    if several and pa.types.is_floating(column.type.value_type):
        return _vector(name, pc.list_value_length(cells).unique())
    if several and _is_plain_or_text(column.type.value_type):
        return _several(name, pc.list_value_length(cells), pc.list_flatten(cells))
    if not _is_plain_or_text(column.type):
        return Ignored(name), f"cells of type {column.type} are not read"
    text = pc.utf8_trim_whitespace(as_text(cells))
    text = text.filter(pc.not_equal(text, ""))
    if len(text) == 0:
        return Ignored(name), "no values"
    distinct = len(text.unique())
    if distinct == 1:
        return Ignored(name), f"only one value, {shown(text[0].as_py())}"
    share = 1 - len(text) / len(column)
    missing = f", {share:.1%} missing" if share else ""
    values = f"{distinct:,} distinct values{missing}"
    when = _time(name, text)
    if when is not None:
        return when
    # Integers that do not fit 64 bits are names, such as hashes.
    whole = pc.replace_substring_regex(text, r"\.0+$", "")
    if _all_match(whole, r"^[+-]?\d{1,18}$"):  # Or 12.0, as pandas writes if some are missing.
        return _integer(name, whole, len(whole.unique()), values)
    fraction = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
    if _all_match(text, fraction) and not _any_match(text, r"^\d{19,}$"):
        return Numeric(name, transform="quantile"), f"numbers with fractions, {values}"
    listed = pc.split_pattern(text, _SEPARATOR)
    elements = pc.list_flatten(listed)
    if len(elements) >= (1 + _LISTS) * len(text) and len(elements.unique()) < distinct:
        return _several(name, pc.list_value_length(listed), elements)
    if _identifies_rows(text, distinct):
        return Ignored(name), f"almost every row has a different value, {values}"
    return Categorical(name, min_count=2), f"text, {values}"


def _vector(name: str, sizes: pa.Array) -> tuple[Column, str]:
    """Infers a column of lists of numbers with fractions from their lengths."""
    if len(sizes) != 1 or sizes[0].as_py() == 0:
        return Ignored(name), "lists of numbers with fractions, of different lengths"
    size = sizes[0].as_py()
    if size > _LONG_VECTOR:
        return Ignored(name), f"vectors of {size:,} numbers, which are costly; reduce them first"
    return Vector(name, size), f"vectors of {size} numbers"


def _is_plain_or_text(kind: pa.DataType) -> bool:
    return is_text(kind) or _is_plain(kind)


def _several(name: str, lengths: pa.Array, elements: pa.Array) -> tuple[Column, str]:
    """Infers a column of several values, with enough slots for almost all cells."""
    text = pc.utf8_trim_whitespace(as_text(elements.drop_null()))
    if len(text) == 0:
        return Ignored(name), "no values"
    longest = max(1, math.ceil(np.quantile(lengths.to_numpy(zero_copy_only=False), _ALMOST_ALL)))
    reason = (
        f"several of {len(text.unique()):,} distinct values per cell, up to {longest} in "
        f"{_ALMOST_ALL:.0%} of the cells"
    )
    dtype = "integer" if _all_match(text, r"^[+-]?(0|[1-9]\d{0,17})$") else "string"
    return MultiValued(name, dtype, _SEPARATOR, longest, min_count=2), reason


def _is_plain(kind: pa.DataType) -> bool:
    tests = (
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        *(pa.types.is_boolean, pa.types.is_dictionary),
    )
    return any(test(kind) for test in tests)


def _integer(name: str, text: pa.Array, distinct: int, values: str) -> tuple[Column, str]:
    # 007 is a name, not a number.
    padded = not _all_match(text, r"^[+-]?(0|[1-9]\d*)$")
    if _identifies_rows(text, distinct) and (_WHICH.search(name) or _counts_rows(text)):
        return Ignored(name), f"a row number, {values}"
    if padded:
        return Categorical(name, min_count=2), f"numbers with leading zeros, {values}"
    if distinct <= _FEW_VALUES:
        return Categorical(name, dtype="integer", min_count=2), f"few integers, {values}"
    if _WHICH.search(name):
        return Categorical(name, dtype="integer", min_count=2), f"integers named as ids, {values}"
    return Numeric(name, transform="quantile"), f"many integers, {values}"


def _identifies_rows(text: pa.Array, distinct: int) -> bool:
    return len(text) >= _SEVERAL_ROWS and distinct >= _DISTINCT_SHARE * len(text)


def _counts_rows(text: pa.Array) -> bool:
    numbers = text.cast(pa.int64()).to_numpy()
    return bool((np.diff(numbers) == 1).all())


def _all_match(text: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, pattern)).as_py())


def _any_match(text: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(text, pattern)).as_py())


def _time(name: str, text: pa.Array) -> tuple[Column, str] | None:
    digits = _all_match(text, r"^\d+$")
    if digits and not _WHEN.search(name):
        return None  # Integers are times only if the name says so.
    if not digits and not _all_match(text, r"^\d{1,4}[-/]\d{1,2}[-/]\d{1,4}"):
        return None
    if digits and _all_match(text, r"^\d{9,13}$"):
        numbers = text.cast(pa.int64())
        bounds = pc.min_max(numbers).as_py()
        for unit, (low, high) in _UNIX.items():
            if low <= bounds["min"] <= bounds["max"] < high:
                return Timestamp(name, unit), f"times since 1970 ({unit}), by its name and range"
    for layout in _LAYOUTS:
        # Python's fromisoformat also accepts 20141021, which the other formats describe better.
        if digits and (layout == "iso" or len(text[0].as_py()) != _length(layout)):
            continue
        # Most layouts fail at once.
        if any(seconds_of_text(text.slice(0, 100), layout)[1]):
            continue
        seconds, bad = seconds_of_text(text, layout)
        inside = pc.min_max(seconds).as_py()
        if not bad.any() and _YEARS[0] <= inside["min"] <= inside["max"] < _YEARS[1]:
            parts = _parts(seconds.cast(pa.timestamp("s")))
            return Timestamp(name, layout, parts=parts), f"times ({layout})"
    return None


def _length(layout: str) -> int:
    return len(layout.replace("%Y", "2014").replace("%", "0"))


def _parts(times: pa.Array):
    """The hour and the weekday of times, or the weekday and the month of dates."""
    seconds = times.cast(pa.timestamp("s"), safe=False)
    hours = pc.any(pc.not_equal(pc.hour(seconds), 0)).as_py()
    return ("hour", "weekday") if hours else ("weekday", "month")
