"""How many rows keep an id of their own, at the options of now and at others."""

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


def coded_counts(field: Field, counts: pa.Table) -> pa.Table:
    """Counts of what has ids: of the values, or of the buckets of numbers; none are missing.

    Args:
      field: One with a vocabulary.
      counts: Columns ``value``, ``rows`` and ``positives``.
    """
    return field.coder.coded_counts(with_value(counts))


def with_value(counts: pa.Table) -> pa.Table:
    """The counts of rows that have a value."""
    return counts.filter(pc.is_valid(counts["value"]))


def fitted(field: Field, counts: pa.Table, **options: int) -> FieldCoder:
    """What ``prepare`` would fit on the training rows' counts, with changed options."""
    changed = dataclasses.replace(field, **options)
    renamed = counts.select(["value", "rows"]).rename_columns(["value", "count"])
    return fit_field(changed.coder, changed, renamed)


def coverage(coder: FieldCoder, counts: pa.Table) -> Coverage:
    """How many of the training rows that a vocabulary was fitted on it keeps."""
    total = pc.sum(with_value(counts)["rows"]).as_py() or 0
    kept = pc.sum(coder.counts).as_py() or 0
    return Coverage(
        min_count=coder.min_count,
        max_size=coder.max_size,
        values=len(coder.vocabulary),
        share=kept / total if total else 1.0,
    )


def known_share(counts: pa.Table, values: pa.Array | pa.ChunkedArray) -> float:
    """Of rows that have a value, those whose value is one of ``values``; 1 where none has one.

    Args:
      counts: Columns ``value`` and ``rows``; none is missing.
      values: The known ones.
    """
    total = pc.sum(counts["rows"]).as_py() or 0
    found = counts.filter(pc.is_in(counts["value"], value_set=values))
    return (pc.sum(found["rows"]).as_py() or 0) / total if total else 1.0


def rank_curve(coded: pa.Table) -> tuple[tuple[int, float], ...]:
    """Share of the rows that the k most frequent values have, at some k from 1 to all."""
    rows = np.sort(coded["rows"].to_numpy())[::-1]
    if not len(rows):
        return ()
    cumulated = np.cumsum(rows) / rows.sum()
    ranks = np.unique(np.geomspace(1, len(rows), _CURVE_POINTS).round().astype(np.int64))
    return tuple((int(k), float(cumulated[k - 1])) for k in ranks)
