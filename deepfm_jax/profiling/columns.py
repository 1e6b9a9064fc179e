"""The report of one column, from the counts of its values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.profiling.counts import SplitCounts
from deepfm_jax.profiling.coverage import (
    MIN_COUNTS,
    Coverage,
    coded_counts,
    coverage,
    fitted,
    known_share,
    rank_curve,
    with_value,
)
from deepfm_jax.profiling.drift import Drift, stability_index
from deepfm_jax.profiling.groups import Group, groups_by
from deepfm_jax.profiling.numbers import Numbers
from deepfm_jax.profiling.views import VIEWS, View, rows_of
from deepfm_jax.schema import Column


@dataclasses.dataclass(frozen=True)
class ColumnReport:
    """Statistics of the training rows in one column; if cells hold several values, values count.

    Attributes:
      name: Name of the column.
      kind: Its kind and options, as text.
      rows: Number of training rows.
      distinct: Number of distinct values or, for times, hours.
      missing: Rows without a value.
      top: The most frequent values; empty for times.
      coverage: Coverage at the current options; None without a vocabulary.
      coverages: Coverage at ``min_count`` 1, 2, 5, 10 and the current ``max_size``.
      ranks: (k, share of the rows with a value that have one of the k most frequent values); empty
        without a vocabulary.
      numbers: Statistics of a numeric column.
      first: Earliest time of a time column, in ISO format.
      last: Latest time of a time column.
      hours: Groups by hour of the day, for a time column.
      days: Groups by date, for a time column.
      drift: Drift of each other split, by name.
    """

    name: str
    kind: str
    rows: int
    distinct: int
    missing: Group
    top: tuple[Group, ...] = ()
    coverage: Coverage | None = None
    coverages: tuple[Coverage, ...] = ()
    ranks: tuple[tuple[int, float], ...] = ()
    numbers: Numbers | None = None
    first: str | None = None
    last: str | None = None
    hours: tuple[Group, ...] = ()
    days: tuple[Group, ...] = ()
    drift: Mapping[str, Drift] = dataclasses.field(default_factory=dict)


def report_column(column: Column, splits: Mapping[str, SplitCounts]) -> ColumnReport:
    """Reports on a column from the counts of all splits, including ``train``."""
    counted = splits["train"].columns[column.name]
    counts = counted.table()
    others = {
        split: found.columns[column.name].table()
        for split, found in splits.items()
        if split != "train" and found.columns[column.name].seen
    }
    values, missing = with_value(counts), counts.filter(pc.is_null(counts["value"]))
    total = pc.sum(counts["rows"]).as_py()
    assert column.profile is not None  # Only columns with a profile are counted.
    view = VIEWS[column.profile](counted, values, total)
    details = view.details()
    covered = {}
    field = column.vocabulary_field
    if field is not None:
        coder = fitted(field, counts)
        details["coverage"] = coverage(coder, counts)
        details["coverages"] = tuple(
            coverage(fitted(field, counts, min_count=least), counts) for least in MIN_COUNTS
        )
        details["ranks"] = rank_curve(coded_counts(field, counts))
        covered = {
            split: known_share(coded_counts(field, other), coder.vocabulary)
            for split, other in others.items()
        }
    return ColumnReport(
        name=column.name,
        kind=kind_text(column),
        rows=total,
        distinct=values.num_rows,
        missing=groups_by(np.zeros(missing.num_rows, int), missing, ["missing"], total)[0],
        drift={
            split: _drift(view, counts, other, covered.get(split))
            for split, other in others.items()
        },
        **details,
    )


def kind_text(column: Column) -> str:
    """A column's kind, and the options that differ from the defaults."""
    options = []
    for field in dataclasses.fields(column):
        value = getattr(column, field.name)
        usual = value == field.default and field.name not in column.SHOWN_OPTIONS
        if field.name == "name" or usual:
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        options.append(field.name if value is True else f"{field.name}={text}")
    return f"{column.kind} ({', '.join(options)})" if options else column.kind


def _drift(view: View, train: pa.Table, other: pa.Table, covered: float | None) -> Drift:
    psi, by_chance = stability_index(view.bins(train, train), view.bins(train, other))
    missing = other.filter(pc.is_null(other["value"]))
    return Drift(
        missing=rows_of(missing) / rows_of(other),
        unseen=view.unseen(train, other),
        covered=covered,
        psi=psi,
        psi_by_chance=by_chance,
    )
