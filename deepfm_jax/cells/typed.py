"""Cells of one value each, typed: each distinct one once, every bad one with what is wrong."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.text import cleaned, is_text
from deepfm_jax.cells.text_format import TextFormat


class BadCell(NamedTuple):
    """A cell that cannot be read.

    Attributes:
      text: Of the cell, or of the first of its values that is bad; None where it is missing.
      reason: What is wrong with it, to stand after the text.
    """

    text: str | None
    reason: str


# Typed values, one for each row, and the bad cells by row.
TypedCells: TypeAlias = tuple[pa.Array, Mapping[int, BadCell]]
# Typed values (null: missing), which of them are bad, and what is wrong with those.
TypedValues: TypeAlias = tuple[pa.Array, np.ndarray, str]


def type_each(
    raw: pa.Array,
    text: TextFormat,
    type_values: Callable[[pa.Array], TypedValues],
    *,
    keep_distinct: bool,
) -> TypedCells:
    """Types cells of one value each.

    Args:
      raw: The cells; where they are dictionary-encoded, each distinct one is typed once.
      text: How a file's text writes them.
      type_values: Types cells that are not dictionary-encoded.
      keep_distinct: Whether dictionary-encoded cells stay so.
    """
    values, bad, reason = _typed(raw, text, type_values, keep_distinct)
    return values, bad_cells(raw, bad, reason)


def bad_cells(raw: pa.Array, bad: np.ndarray, reason: str) -> dict[int, BadCell]:
    """The bad ones of raw cells, by row, as they stand."""
    found = {}
    for row in np.flatnonzero(bad).tolist():
        value = raw[row].as_py()
        found[row] = BadCell(None if value is None else str(value), reason)
    return found


def _typed(raw: pa.Array, text: TextFormat, type_values, keep_distinct: bool) -> TypedValues:
    if not pa.types.is_dictionary(raw.type):
        return type_values(cleaned(raw, text) if is_text(raw.type) else raw)
    # A missing cell is one of the distinct ones, the last.
    distinct = pa.concat_arrays([raw.dictionary, pa.nulls(1, raw.dictionary.type)])
    values, bad, reason = _typed(distinct, text, type_values, keep_distinct)
    if keep_distinct and values.null_count == 1 and not bad.any():
        indices, values = raw.indices.cast(pa.int32()), values.slice(0, len(raw.dictionary))
        none_bad = np.zeros(len(raw), dtype=bool)
        return pa.DictionaryArray.from_arrays(indices, values), none_bad, reason
    places = raw.indices.fill_null(len(raw.dictionary))
    values = values.take(places)
    # A dictionary holds what is missing as a row without an index, and not as one of its values.
    return values.dictionary_encode() if keep_distinct else values, bad[places.to_numpy()], reason
