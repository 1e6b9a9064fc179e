"""From raw cells to typed columns: missing values, numbers, integers and labels in text or not."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.readers.times import seconds_of_numbers, seconds_of_text, seconds_of_times
from deepfm_jax.schema import TextFormat
from deepfm_jax.schema.columns import (
    Categorical,
    Category,
    Group,
    Label,
    Numeric,
    Timestamp,
    Weight,
)

_NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# 12.0 is what tools write of the integers of a column that lacks some.
_INTEGER = r"^-?0*\d{1,19}(\.0*)?$"
_LEAST, _GREATEST = (pa.scalar(decimal.Decimal(n)) for n in (-(2**63), 2**63 - 1))


def typed_column(
    raw: pa.Array,
    column: Categorical | Numeric | Timestamp | Label | Weight | Group,
    text: TextFormat,
) -> tuple[pa.Array, np.ndarray, str]:
    """Typed values, which rows are bad, and what is wrong with those.

    A column of times gives seconds since 1970. A dictionary-encoded field stays so.
    """
    if pa.types.is_dictionary(raw.type):
        return _typed_distinct(raw, column, text)
    if is_text(raw.type):
        raw = cleaned(raw, text)
    if isinstance(column, Group):
        column = Categorical(column.name, column.dtype)
    if isinstance(column, Categorical):
        return typed_categories(raw, column)
    if isinstance(column, Timestamp):
        seconds, bad = _seconds(raw, column.format)
        return seconds, bad, f"is not a time ({column.format})"
    if isinstance(column, Label) and column.values is not None:
        return _named_labels(raw, column.values)
    if isinstance(column, Label) and column.positive is not None:
        return _one_against_all(raw, column.positive)
    values, bad = typed_numbers(raw)
    if isinstance(column, Numeric):
        return values, bad, "is not a finite number"
    numbers = values.to_numpy(zero_copy_only=False)
    if isinstance(column, Weight):
        # Beyond the largest float32 there is no such weight either.
        bad = bad | ~((numbers >= 0) & (numbers <= np.finfo(np.float32).max))
        return values, bad, "is not a weight, a finite number from 0 on"
    bad = ~((numbers == 0) | (numbers == 1))
    return values.cast(pa.float32()), bad, "is not a label, 0 or 1"


def _typed_distinct(
    raw: pa.DictionaryArray, column, text: TextFormat
) -> tuple[pa.Array, np.ndarray, str]:
    """What ``typed_column`` finds, by a look at each distinct cell and not at each row."""
    # A missing cell is one of them, the last.
    distinct = pa.concat_arrays([raw.dictionary, pa.nulls(1, raw.dictionary.type)])
    values, bad, reason = typed_column(distinct, column, text)
    is_field = isinstance(column, Categorical | Numeric)
    if is_field and values.null_count == 1 and not bad.any():
        indices, values = raw.indices.cast(pa.int32()), values.slice(0, len(raw.dictionary))
        none_bad = np.zeros(len(raw), dtype=bool)
        return pa.DictionaryArray.from_arrays(indices, values), none_bad, reason
    places = raw.indices.fill_null(len(raw.dictionary))
    values = values.take(places)
    # A dictionary holds what is missing as a row without an index, and not as one of its values.
    return values.dictionary_encode() if is_field else values, bad[places.to_numpy()], reason


def cleaned(raw: pa.Array, text: TextFormat) -> pa.Array:
    """Cells without the spaces and the signs of a missing value that the layout knows."""
    if not (text.trim or text.missing):
        return raw
    cells = as_text(raw)
    if text.trim:
        cells = pc.utf8_trim_whitespace(cells)
    if text.missing:
        missing = pc.is_in(cells, value_set=pa.array(text.missing, pa.string()))
        cells = pc.if_else(missing, pa.scalar(None, pa.string()), cells)
    return cells


def missing_cells(raw: pa.Array, text: TextFormat) -> np.ndarray:
    """Which cells hold nothing: null, NaN, blank text, or a text that the layout calls missing."""
    raw = decoded(raw)
    if is_text(raw.type):
        raw = _empty_to_null(pc.utf8_trim_whitespace(as_text(cleaned(raw, text))))
    return pc.is_null(raw, nan_is_null=True).to_numpy(zero_copy_only=False)


def typed_categories(raw: pa.Array, column: Category) -> tuple[pa.Array, np.ndarray, str]:
    """Strings or int64 of values (null: missing), which are bad, and what is wrong with those."""
    if column.dtype == "string":
        text = _empty_to_null(as_text(raw))
        bad = np.zeros(len(raw), dtype=bool)
        bad[rows_with(text, "\0")] = True
        return text, bad, "holds NUL bytes"
    values, bad = _integers(raw)
    if column.size is None:
        return values, bad, "is not an integer"
    numbers = values.fill_null(0).to_numpy()
    bad = bad | (numbers < 0) | (numbers >= column.size)
    return values, bad, f"is not an id from 0 to {column.size - 1}"


def _seconds(raw: pa.Array, layout: str) -> tuple[pa.Array, np.ndarray]:
    if pa.types.is_timestamp(raw.type) or pa.types.is_date(raw.type):
        return seconds_of_times(raw), np.zeros(len(raw), dtype=bool)
    if layout in ("unix", "unix_ms"):
        numbers, bad = typed_numbers(raw)
        seconds, impossible = seconds_of_numbers(numbers, 1.0 if layout == "unix" else 1e-3)
        return seconds, bad | impossible
    return seconds_of_text(_empty_to_null(pc.utf8_trim_whitespace(as_text(raw))), layout)


def _named_labels(raw: pa.Array, values: tuple[str, str]) -> tuple[pa.Array, np.ndarray, str]:
    found = pc.index_in(pc.utf8_trim_whitespace(as_text(raw)), value_set=pa.array(values))
    bad = pc.is_null(found).to_numpy(zero_copy_only=False)
    return found.cast(pa.float32()), bad, f"is not a label, {values[0]!r} or {values[1]!r}"


def _one_against_all(raw: pa.Array, positive: str) -> tuple[pa.Array, np.ndarray, str]:
    cells = _empty_to_null(pc.utf8_trim_whitespace(as_text(raw)))
    bad = pc.is_null(cells).to_numpy(zero_copy_only=False)
    return pc.equal(cells, positive).cast(pa.float32()), bad, "cannot be a label"


def rows_with(text: pa.Array, character: str) -> np.ndarray:
    """Which rows hold an ASCII character; where none does, that costs a look at the bytes."""
    if pa.types.is_dictionary(text.type):
        found = rows_with(text.dictionary, character)
        return np.flatnonzero(np.isin(text.indices.fill_null(-1), found)) if len(found) else found
    data = text.buffers()[2]
    if data is None or not (np.frombuffer(data, np.uint8) == ord(character)).any():
        return np.zeros(0, np.int64)
    found = pc.fill_null(pc.match_substring(text, character), False)
    return np.flatnonzero(found.to_numpy(zero_copy_only=False))


def _empty_to_null(text: pa.Array) -> pa.Array:
    empty = pc.fill_null(pc.equal(pc.utf8_length(text), 0), False)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text)


def decoded(cells: pa.Array) -> pa.Array:
    """Typed cells, one for each row, where they may be dictionary-encoded."""
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings, in whatever encoding."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def as_text(raw: pa.Array) -> pa.Array:
    """Cells of any type as strings; NaN is a missing one."""
    if pa.types.is_dictionary(raw.type):  # Not every kind of string can be taken from one.
        words = raw.dictionary.cast(pa.string())
        return pa.DictionaryArray.from_arrays(raw.indices, words).cast(pa.string())
    if pa.types.is_floating(raw.type):
        raw = pc.if_else(pc.fill_null(pc.is_nan(raw), False), pa.scalar(None, raw.type), raw)
    return raw.cast(pa.string())


def _trimmed(raw: pa.Array) -> pa.Array:
    """Text without surrounding spaces or the plus of a number, empty cells null."""
    text = pc.utf8_trim_whitespace(as_text(raw))
    return _empty_to_null(pc.replace_substring_regex(text, r"^\+([\d.])", r"\1"))


def _keep_matching(text: pa.Array, pattern: str) -> tuple[pa.Array, np.ndarray]:
    """The cells that match, the others null, and which those were."""
    matches = pc.fill_null(pc.match_substring_regex(text, pattern), True)
    kept = pc.if_else(matches, text, pa.scalar(None, pa.string()))
    return kept, ~matches.to_numpy(zero_copy_only=False)


def typed_numbers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Numbers as float64 (null: missing), and which cells are no finite one."""
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _trimmed(raw)
        try:
            values = text.cast(pa.float64())
        except pa.ArrowInvalid:
            text, bad = _keep_matching(text, _NUMBER)
            values = text.cast(pa.float64())
        # "nan" and "inf" are words in a text file; an empty cell is how a value is missing.
        bad = bad | ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
        return values, bad
    # Integers above 2^53 are rounded, as those of a text are.
    values = raw.cast(pa.float64(), safe=False)
    values = pc.if_else(pc.fill_null(pc.is_nan(values), False), None, values)
    return values, ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)


def _integers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _trimmed(raw)
        try:
            values = text.cast(pa.int64())
        except pa.ArrowInvalid:
            return _integers_among_others(text)
        # The cast takes 0x1f for a number, too.
        if any(len(rows_with(text, character)) for character in "xX"):
            return _integers_among_others(text)
        return values, bad
    if pa.types.is_uint64(raw.type):
        fits = pc.less_equal(raw, pa.scalar(2**63 - 1, raw.type))
        bad = ~pc.fill_null(fits, True).to_numpy(zero_copy_only=False)
        raw = pc.if_else(fits, raw, pa.scalar(None, raw.type))
    if pa.types.is_floating(raw.type):
        return _whole_numbers(raw)
    if pa.types.is_decimal(raw.type):
        return _whole_decimals(raw)
    return raw.cast(pa.int64()), bad


def _whole_numbers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The numbers that are integers of 64 bits as int64, the others null, and which those were."""
    numbers = raw.to_numpy(zero_copy_only=False).astype(np.float64)
    # 2^63 is a float64, and the greatest integer of 64 bits none.
    whole = (np.floor(numbers) == numbers) & (numbers >= -(2.0**63)) & (numbers < 2.0**63)
    values = np.where(whole, numbers, 0).astype(np.int64)
    return pa.array(values, mask=~whole), ~whole & ~np.isnan(numbers)


def _whole_decimals(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """As ``_whole_numbers``; those beyond 2^53 are no float64."""
    # Of the narrower kinds and of negative scales pyarrow knows no rounding.
    numbers = raw.cast(pa.decimal256(76, max(raw.type.scale, 0)))
    whole = pc.trunc(numbers)
    return _inside(whole.cast(pa.decimal256(76, 0)), pc.equal(whole, numbers))


def _integers_among_others(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The cells that are integers of 64 bits as int64, the others null, and which those were."""
    kept, bad = _keep_matching(text, _INTEGER)
    numbers = pc.replace_substring_regex(kept, r"\..*$", "").cast(pa.decimal128(38, 0))
    values, beyond = _inside(numbers, pc.is_valid(numbers))
    return values, bad | beyond


def _inside(numbers: pa.Array, whole: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Decimals that are whole and of 64 bits as int64, the others null, and which those were."""
    inside = pc.and_(pc.less_equal(_LEAST, numbers), pc.less_equal(numbers, _GREATEST))
    inside = pc.and_(inside, whole)
    kept = pc.if_else(inside, numbers, pa.scalar(None, numbers.type))
    bad = ~pc.fill_null(inside, True).to_numpy(zero_copy_only=False)
    return kept.cast(pa.int64()), bad
