"""Encodes lists of values in the slots of a row: which values are kept, their ids and weights."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from deepfm_jax.features import PADDING_ID


class KeptElements(NamedTuple):
    """The elements that fit in the slots, row by row.

    Attributes:
      values: Value of each element.
      weights: Weight of each element, float32; None if the column has no weights.
      lengths: Number of elements kept in each row.
      longer: Number of rows that had more elements.
    """

    values: pa.Array
    weights: np.ndarray | None
    lengths: np.ndarray
    longer: int


def kept_elements(
    column: pa.ChunkedArray, max_length: int, *, weighted: bool, keep_last: bool
) -> KeptElements:
    """Keeps the first or the last ``max_length`` elements of each typed list.

    Args:
      column: Lists of values, or of structs of ``value`` and ``weight``, [rows].
      max_length: Number of slots of a row.
      weighted: Whether the elements are such structs.
      keep_last: Whether to keep the last elements instead of the first.
    """
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)
    kept = np.minimum(lengths, max_length)
    longer = int((lengths > max_length).sum())
    if longer:
        starts = offsets[:-1] + (lengths - kept if keep_last else 0)
        # The place of each element in its row, added to the start of the row.
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
    """Fills the slots of a field from the left; see ``columns.MultiValued``.

    Args:
      kept: The elements of the rows.
      value_ids: Maps values to ids.
      missing_id: Id for a row without any value.
      ids: Overwritten by the id of each value, or ``PADDING_ID``.
      values: Overwritten by the weight of each value, or 0.
    """
    rows = np.repeat(np.arange(len(kept.lengths)), kept.lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(kept.lengths) - kept.lengths, kept.lengths)
    ids[:], values[:] = PADDING_ID, 0.0
    empty = kept.lengths == 0
    ids[empty, 0], values[empty, 0] = missing_id, 1.0
    ids[rows, places] = value_ids(kept.values)
    values[rows, places] = 1.0 if kept.weights is None else kept.weights
