"""Types times of many layouts as seconds since 1970 (UTC), and extracts their parts."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import datetime
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.text import trimmed

TimePart: TypeAlias = Literal["hour", "weekday", "weekend", "day", "month"]

# The years 1 to 9999, the range of Python's dates.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_PARTS: dict[TimePart, Callable[[pa.Array], pa.Array]] = {
    "hour": pc.hour,
    "weekday": pc.day_of_week,
    "weekend": lambda times: pc.greater_equal(pc.day_of_week(times), 5),
    "day": pc.day,
    "month": pc.month,
}


def time_part(seconds: pa.Array, part: TimePart) -> pa.Array:
    """Extracts a part of each time as int64 (see ``columns.Timestamp``); nulls stay null."""
    return _PARTS[part](seconds.cast(pa.timestamp("s"))).cast(pa.int64())


def seconds_of_cells(raw: pa.Array, layout: str) -> tuple[pa.Array, np.ndarray]:
    """Returns whole seconds since 1970 (null: missing), and a mask of the cells that are not times.

    Args:
      raw: Times, dates, or numbers or text in the layout.
      layout: ``"iso"``, ``"unix"``, ``"unix_ms"`` or a strptime format.
    """
    if pa.types.is_timestamp(raw.type) or pa.types.is_date(raw.type):
        return seconds_of_times(raw), np.zeros(len(raw), dtype=bool)
    if layout in ("unix", "unix_ms"):
        numbers, bad = typed_numbers(raw)
        seconds, impossible = seconds_of_numbers(numbers, 1.0 if layout == "unix" else 1e-3)
        return seconds, bad | impossible
    return seconds_of_text(trimmed(raw), layout)


def seconds_of_times(times: pa.Array) -> pa.Array:
    """Converts times or dates to whole seconds since 1970."""
    return times.cast(pa.timestamp("s"), safe=False).cast(pa.int64())


def seconds_of_numbers(numbers: pa.Array, unit: float) -> tuple[pa.Array, np.ndarray]:
    """Converts multiples of ``unit`` seconds to seconds since 1970, and masks impossible dates."""
    values = np.floor(numbers.to_numpy(zero_copy_only=False) * unit)
    bad = (values < _FIRST) | (values > _LAST)
    empty = bad | np.isnan(values)
    return pa.array(np.where(empty, 0, values).astype(np.int64), mask=empty), bad


def seconds_of_text(text: pa.Array, layout: str) -> tuple[pa.Array, np.ndarray]:
    """Parses ``iso`` or strptime text to whole seconds since 1970; masks texts that are not times.

    Python parses each distinct text once, because it checks the number of days in a month.
    """
    if layout == "iso":
        try:
            return seconds_of_times(text.cast(pa.timestamp("us"))), np.zeros(len(text), dtype=bool)
        except pa.ArrowInvalid:
            pass  # Some have a zone, or are not times.
    coded = text.dictionary_encode()
    parsed = pa.array([_parsed(each, layout) for each in coded.dictionary.to_pylist()], pa.int64())
    seconds = parsed.take(coded.indices)
    bad = pc.and_(pc.is_null(seconds), pc.is_valid(text))
    return seconds, bad.to_numpy(zero_copy_only=False)


def _parsed(text: str, layout: str) -> int | None:
    try:
        if layout == "iso":
            time = datetime.datetime.fromisoformat(text)
        else:
            time = datetime.datetime.strptime(text, layout)
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.UTC)
        return int(np.floor(time.timestamp()))
    except (ValueError, OverflowError):
        return None
