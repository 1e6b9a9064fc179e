"""Types cells of one value each: every distinct cell once, every bad cell with a reason."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text import cleaned, is_text
from deepfm_jax.cells.text_format import TextFormat


class BadCell(NamedTuple):
    """A cell that cannot be read.

    Attributes:
      text: Text of the cell, or of its first bad value; None if the cell is missing.
      reason: What is wrong, as it follows the text in a message.
    """

    text: str | None
    reason: str


# Typed values, one per row, and the bad cells by row.
TypedCells: TypeAlias = tuple[pa.Array, Mapping[int, BadCell]]
# Typed values (null: missing), a mask of the bad ones, and what is wrong with them.
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
      raw: The cells; if they are dictionary-encoded, each distinct one is typed once.
      text: Layout of the text file that they come from.
      type_values: Types cells that are not dictionary-encoded.
      keep_distinct: Whether dictionary-encoded cells stay dictionary-encoded.
    """
    values, bad, reason = _typed(raw, text, type_values, keep_distinct)
    return values, bad_cells(raw, bad, reason)


def bad_cells(raw: pa.Array, bad: np.ndarray, reason: str) -> dict[int, BadCell]:
    """Returns the bad cells by row, with their raw text."""
    found = {}
    for row in np.flatnonzero(bad).tolist():
        value = raw[row].as_py()
        found[row] = BadCell(None if value is None else str(value), reason)
    return found


def _typed(raw: pa.Array, text: TextFormat, type_values, keep_distinct: bool) -> TypedValues:
    if not pa.types.is_dictionary(raw.type):
        return type_values(cleaned(raw, text) if is_text(raw.type) else raw)
    # The last distinct cell is the missing one.
    distinct = pa.concat_arrays([raw.dictionary, pa.nulls(1, raw.dictionary.type)])
    values, bad, reason = _typed(distinct, text, type_values, keep_distinct)
    if keep_distinct and values.null_count == 1 and not bad.any():
        indices, values = raw.indices.cast(pa.int32()), values.slice(0, len(raw.dictionary))
        return pa.DictionaryArray.from_arrays(indices, values), np.zeros(len(raw), bool), reason
    places = raw.indices.fill_null(len(raw.dictionary))
    if keep_distinct:
        # A bad row is left out, but the dictionary that its value is in is not made anew.
        values = pc.if_else(pa.array(bad), None, values)
    values = values.take(places)
    # In a dictionary array, a missing row has no index, and null is not among the values.
    return values.dictionary_encode() if keep_distinct else values, bad[places.to_numpy()], reason
