"""How many rows keep an id of their own, at the options of now and at others."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.encoding.vocabulary import FieldCoder, fit_field, log2_floor
from deepfm_jax.schema.columns import Categorical, Column, MultiValued, Numeric

MIN_COUNTS = (1, 2, 5, 10)
_CURVE_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What a vocabulary of the training rows keeps.

    Attributes:
      min_count: The option.
      max_size: The option.
      values: Values that have an id.
      share: Of the training rows that have a value, those whose value has an id.
    """

    min_count: int
    max_size: int | None
    values: int
    share: float


def has_vocabulary(column: Column) -> bool:
    """Whether ids are given to the values of the training rows, or to their ``log2_floor``."""
    if isinstance(column, Numeric):
        return column.transform == "log2_floor"
    return isinstance(column, Categorical | MultiValued) and column.has_vocabulary


def coded_counts(column: Column, counts: pa.Table) -> pa.Table:
    """Counts of the values that have ids: of the buckets for ``log2_floor``; none are missing.

    Args:
      column: One with a vocabulary.
      counts: Columns ``value``, ``rows`` and ``positives``.
    """
    counts = counts.filter(pc.is_valid(counts["value"]))
    if not isinstance(column, Numeric):
        return counts
    buckets = log2_floor(counts["value"].to_numpy())
    merged = pa.table({"value": buckets, "rows": counts["rows"]}).group_by("value")
    return merged.aggregate([("rows", "sum")]).rename_columns({"rows_sum": "rows"})


def fitted(column: Column, counts: pa.Table, **options: int) -> FieldCoder:
    """What ``prepare`` would fit on the training rows' counts, with changed options."""
    changed = dataclasses.replace(column, **options)
    renamed = counts.select(["value", "rows"]).rename_columns(["value", "count"])
    return fit_field(changed, renamed)  # pyright: ignore[reportArgumentType]


def coverage(coder: FieldCoder, counts: pa.Table) -> Coverage:
    """How many of the training rows that a vocabulary was fitted on it keeps."""
    total = pc.sum(counts.filter(pc.is_valid(counts["value"]))["rows"]).as_py() or 0
    kept = pc.sum(coder.counts).as_py() or 0
    return Coverage(
        min_count=coder.field.min_count,
        max_size=getattr(coder.field, "max_size", None),
        values=len(coder.vocabulary),
        share=kept / total if total else 1.0,
    )


def known_share(counts: pa.Table, column: Column, values: pa.Array | pa.ChunkedArray) -> float:
    """Of rows that have a value, those whose value is one of ``values``; 1 where none has one."""
    coded = coded_counts(column, counts)
    total = pc.sum(coded["rows"]).as_py() or 0
    found = coded.filter(pc.is_in(coded["value"], value_set=values))
    return (pc.sum(found["rows"]).as_py() or 0) / total if total else 1.0


def rank_curve(coded: pa.Table) -> tuple[tuple[int, float], ...]:
    """Share of the rows that the k most frequent values have, at some k from 1 to all."""
    rows = np.sort(coded["rows"].to_numpy())[::-1]
    if not len(rows):
        return ()
    cumulated = np.cumsum(rows) / rows.sum()
    ranks = np.unique(np.geomspace(1, len(rows), _CURVE_POINTS).round().astype(np.int64))
    return tuple((int(k), float(cumulated[k - 1])) for k in ranks)
