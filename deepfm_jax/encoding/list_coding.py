"""Lists of values as slots of a row: which are kept, their ids, their combined weights."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from deepfm_jax.features import PADDING_ID
from deepfm_jax.schema.list_columns import Combiner, MultiValued


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


def kept_elements(column: pa.ChunkedArray, field: MultiValued) -> KeptElements:
    """The first ``max_length`` elements of each row of typed lists; of a history the last."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)
    kept = np.minimum(lengths, field.max_length)
    longer = int((lengths > field.max_length).sum())
    if longer:
        starts = offsets[:-1] + (lengths - kept if field.keeps_last else 0)
        # Of each element its place in its row, counted on from where the row starts.
        ends = np.cumsum(kept)
        places = np.arange(ends[-1]) - np.repeat(ends - kept, kept)
        elements = lists.values.take(pa.array(np.repeat(starts, kept) + places))
    else:
        elements = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    weights = None
    if field.weight_separator is not None:
        elements, weight_column = elements.flatten()
        weights = weight_column.to_numpy()
    return KeptElements(elements, weights, kept, longer)


def fill_slots(
    kept: KeptElements,
    field: MultiValued,
    value_ids: Callable[[pa.Array], np.ndarray],
    missing_id: int,
    ids: Int32[np.ndarray, "rows slots"],
    values: Float32[np.ndarray, "rows slots"],
) -> None:
    """Writes ids and values of a field's slots, from the left; see ``schema.columns.MultiValued``.

    Args:
      kept: Of the rows.
      field: Its declaration.
      value_ids: Ids of values.
      missing_id: Of a row without any.
      ids: Written: that of each value, else ``PADDING_ID``.
      values: Written: what the combiner makes of each value's weight, else 0.
    """
    rows = np.repeat(np.arange(len(kept.lengths)), kept.lengths)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(kept.lengths) - kept.lengths, kept.lengths)
    ids[:], values[:] = PADDING_ID, 0.0
    empty = kept.lengths == 0
    ids[empty, 0], values[empty, 0] = missing_id, 1.0
    ids[rows, places] = value_ids(kept.values)
    weights = np.ones(len(rows)) if kept.weights is None else kept.weights.astype(np.float64)
    values[rows, places] = weights / _divisors(weights, rows, len(empty), field.combiner)


def _divisors(
    weights: np.ndarray, rows: np.ndarray, count: int, combiner: Combiner
) -> np.ndarray | float:
    """What the weight of each element is divided by; ``rows`` says which row each is of."""
    if combiner == "sum":
        return 1.0
    if combiner == "mean":
        return np.bincount(rows, weights, minlength=count)[rows]
    return np.sqrt(np.bincount(rows, weights**2, minlength=count))[rows]
