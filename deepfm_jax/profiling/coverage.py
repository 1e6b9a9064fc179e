"""The share of rows whose value has an id, at the current options and at others."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.coder import FieldCoder, fit_field
from deepfm_jax.schema import Field

MIN_COUNTS = (1, 2, 5, 10)
_CURVE_POINTS = 60


@dataclasses.dataclass(frozen=True)
class Coverage:
    """The part of the training values that a vocabulary keeps.

    Attributes:
      min_count: Option of the vocabulary.
      max_size: Option of the vocabulary.
      values: Number of values that have an id.
      share: Share of the training rows with a value whose value has an id.
    """

    min_count: int
    max_size: int | None
    values: int
    share: float


def coded_counts(field: Field, counts: pa.Table) -> pa.Table:
    """Counts of what gets ids: values, or buckets of numbers; without missing ones.

    Args:
      field: A field with a vocabulary.
      counts: Columns ``value``, ``rows`` and ``positives``.
    """
    return field.coder.coded_counts(with_value(counts))


def with_value(counts: pa.Table) -> pa.Table:
    """The counts of rows that have a value."""
    return counts.filter(pc.is_valid(counts["value"]))


def fitted(field: Field, counts: pa.Table, **options: int) -> FieldCoder:
    """The coder that ``prepare`` would fit to the training counts with changed options."""
    changed = dataclasses.replace(field, **options)
    renamed = counts.select(["value", "rows"]).rename_columns(["value", "count"])
    return fit_field(changed.coder, changed, renamed)


def coverage(coder: FieldCoder, counts: pa.Table) -> Coverage:
    """The coverage of a vocabulary on the training rows that it was fitted on."""
    total = pc.sum(with_value(counts)["rows"]).as_py() or 0
    kept = pc.sum(coder.counts).as_py() or 0
    return Coverage(
        min_count=coder.min_count,
        max_size=coder.max_size,
        values=len(coder.vocabulary),
        share=kept / total if total else 1.0,
    )


def known_share(counts: pa.Table, values: pa.Array | pa.ChunkedArray) -> float:
    """The share of rows whose value is one of ``values``; 1 if there are no rows.

    Args:
      counts: Columns ``value``, without missing ones, and ``rows``.
      values: The known values.
    """
    total = pc.sum(counts["rows"]).as_py() or 0
    found = counts.filter(pc.is_in(counts["value"], value_set=values))
    return (pc.sum(found["rows"]).as_py() or 0) / total if total else 1.0


def rank_curve(coded: pa.Table) -> tuple[tuple[int, float], ...]:
    """The share of rows that have one of the k most frequent values, for some k from 1 to all."""
    rows = np.sort(coded["rows"].to_numpy())[::-1]
    if not len(rows):
        return ()
    cumulated = np.cumsum(rows) / rows.sum()
    ranks = np.unique(np.geomspace(1, len(rows), _CURVE_POINTS).round().astype(np.int64))
    return tuple((int(k), float(cumulated[k - 1])) for k in ranks)
