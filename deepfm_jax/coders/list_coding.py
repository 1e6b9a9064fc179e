"""Lists of values as slots of a row: which are kept, their ids, their weights."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from deepfm_jax.features import PADDING_ID


class KeptElements(NamedTuple):
    """The elements that the rows have slots for, row by row.

    Attributes:
      values: Of each element.
      weights: Likewise, float32; None where the column has none.
      lengths: Elements of each row.
      longer: Rows that had more.
    """

    values: pa.Array
    weights: np.ndarray | None
    lengths: np.ndarray
    longer: int


def kept_elements(
    column: pa.ChunkedArray, max_length: int, *, weighted: bool, keep_last: bool
) -> KeptElements:
    """The first ``max_length`` elements of each row of typed lists, or the last.

    Args:
      column: Lists of values, or of structs of ``value`` and ``weight``, [rows].
      max_length: Slots of a row.
      weighted: Whether they are such structs.
      keep_last: Whether the last elements are kept.
    """
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)
    kept = np.minimum(lengths, max_length)
    longer = int((lengths > max_length).sum())
    if longer:
        starts = offsets[:-1] + (lengths - kept if keep_last else 0)
        # Of each element its place in its row, counted on from where the row starts.
        ends = np.cumsum(kept)
        places = np.arange(ends[-1]) - np.repeat(ends - kept, kept)
        elements = lists.values.take(pa.array(np.repeat(starts, kept) + places))
    else:
        elements = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    weights = None
    if weighted:
        elements, weight_column = elements.flatten()
        weights = weight_column.to_numpy()
    return KeptElements(elements, weights, kept, longer)


def fill_slots(
    kept: KeptElements,
    value_ids: Callable[[pa.Array], np.ndarray],
    missing_id: int,
    ids: Int32[np.ndarray, "rows slots"],
    values: Float32[np.ndarray, "rows slots"],
) -> None:
    """Writes ids and values of a field's slots, from the left; see ``columns.MultiValued``.

    Args:
      kept: Of the rows.
      value_ids: Ids of values.
      missing_id: Of a row without any value.
      ids: Written: that of each value, else ``PADDING_ID``.
      values: Written: the weight of each value, else 0.
    """
    rows = np.repeat(np.arange(len(kept.lengths)), kept.lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(kept.lengths) - kept.lengths, kept.lengths)
    ids[:], values[:] = PADDING_ID, 0.0
    empty = kept.lengths == 0
    ids[empty, 0], values[empty, 0] = missing_id, 1.0
    ids[rows, places] = value_ids(kept.values)
    values[rows, places] = 1.0 if kept.weights is None else kept.weights
