"""Cells of numbers, in text or not, to float64 and int64."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text import as_text, empty_to_null, is_text, rows_with

_NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# 12.0 is what tools write of the integers of a column that lacks some.
_INTEGER = r"^-?0*\d{1,19}(\.0*)?$"
_LEAST, _GREATEST = (pa.scalar(decimal.Decimal(n)) for n in (-(2**63), 2**63 - 1))


def _number_text(raw: pa.Array) -> pa.Array:
    """Text without surrounding spaces or the plus of a number, empty cells null."""
    text = pc.utf8_trim_whitespace(as_text(raw))
    return empty_to_null(pc.replace_substring_regex(text, r"^\+([\d.])", r"\1"))


def _keep_matching(text: pa.Array, pattern: str) -> tuple[pa.Array, np.ndarray]:
    """The cells that match, the others null, and which those were."""
    matches = pc.fill_null(pc.match_substring_regex(text, pattern), True)
    kept = pc.if_else(matches, text, pa.scalar(None, pa.string()))
    return kept, ~matches.to_numpy(zero_copy_only=False)


def typed_numbers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Numbers as float64 (null: missing), and which cells are no finite one."""
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _number_text(raw)
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


def typed_integers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Integers as int64 (null: missing), and which cells are not 64-bit integers."""
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _number_text(raw)
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
