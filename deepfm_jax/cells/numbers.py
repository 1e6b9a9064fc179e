"""Types cells of numbers, in text or not, as float64 and int64."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text import as_text, empty_to_null, is_text, rows_with

_NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# Tools write integers as 12.0 if some cells of the column are missing.
_INTEGER = r"^-?0*\d{1,19}(\.0*)?$"
_LEAST, _GREATEST = (pa.scalar(decimal.Decimal(n)) for n in (-(2**63), 2**63 - 1))


def _number_text(raw: pa.Array) -> pa.Array:
    """Strips surrounding spaces and the plus sign of a number; empty cells become null."""
    text = pc.utf8_trim_whitespace(as_text(raw))
    return empty_to_null(pc.replace_substring_regex(text, r"^\+([\d.])", r"\1"))


def _keep_matching(text: pa.Array, pattern: str) -> tuple[pa.Array, np.ndarray]:
    """Returns the cells with those that do not match set to null, and a mask of the latter."""
    matches = pc.fill_null(pc.match_substring_regex(text, pattern), True)
    kept = pc.if_else(matches, text, pa.scalar(None, pa.string()))
    return kept, ~matches.to_numpy(zero_copy_only=False)


def typed_numbers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns numbers as float64 (null: missing), and a mask of the cells that are not finite."""
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _number_text(raw)
        try:
            values = text.cast(pa.float64())
        except pa.ArrowInvalid:
            text, bad = _keep_matching(text, _NUMBER)
            values = text.cast(pa.float64())
        # "nan" and "inf" are words in a text file; only an empty cell is a missing value.
        bad = bad | ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
        return values, bad
    # Integers above 2^53 are rounded, as in text.
    values = raw.cast(pa.float64(), safe=False)
    values = pc.if_else(pc.fill_null(pc.is_nan(values), False), None, values)
    return values, ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)


def typed_integers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns integers as int64 (null: missing), and a mask of the cells that are not int64."""
    bad = np.zeros(len(raw), dtype=bool)
    if is_text(raw.type):
        text = _number_text(raw)
        try:
            values = text.cast(pa.int64())
        except pa.ArrowInvalid:
            return _integers_among_others(text)
        # The cast would also accept 0x1f.
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
    """Returns the numbers that fit int64, the others as null, and a mask of the bad ones."""
    numbers = raw.to_numpy(zero_copy_only=False).astype(np.float64)
    # 2^63 is representable in float64, but 2^63 - 1 is not.
    whole = (np.floor(numbers) == numbers) & (numbers >= -(2.0**63)) & (numbers < 2.0**63)
    values = np.where(whole, numbers, 0).astype(np.int64)
    return pa.array(values, mask=~whole), ~whole & ~np.isnan(numbers)


def _whole_decimals(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Does what ``_whole_numbers`` does, for decimals, which float64 would round above 2^53."""
    # pyarrow cannot round narrower decimals or negative scales.
    numbers = raw.cast(pa.decimal256(76, max(raw.type.scale, 0)))
    whole = pc.trunc(numbers)
    return _inside(whole.cast(pa.decimal256(76, 0)), pc.equal(whole, numbers))


def _integers_among_others(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns the cells that fit int64, the others as null, and a mask of the bad ones."""
    kept, bad = _keep_matching(text, _INTEGER)
    numbers = pc.replace_substring_regex(kept, r"\..*$", "").cast(pa.decimal128(38, 0))
    values, beyond = _inside(numbers, pc.is_valid(numbers))
    return values, bad | beyond


def _inside(numbers: pa.Array, whole: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns the whole decimals that fit int64, the others as null, and a mask of the bad ones."""
    inside = pc.and_(pc.less_equal(_LEAST, numbers), pc.less_equal(numbers, _GREATEST))
    inside = pc.and_(inside, whole)
    kept = pc.if_else(inside, numbers, pa.scalar(None, numbers.type))
    bad = ~pc.fill_null(inside, True).to_numpy(zero_copy_only=False)
    return kept.cast(pa.int64()), bad
