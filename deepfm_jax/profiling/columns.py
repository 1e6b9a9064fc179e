"""The report of one column, from the counts of its values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.profiling.counts import SECONDS_OF_HOUR, SplitCounts, ValueCounts
from deepfm_jax.profiling.coverage import (
    MIN_COUNTS,
    Coverage,
    coded_counts,
    coverage,
    fitted,
    has_vocabulary,
    known_share,
    rank_curve,
)
from deepfm_jax.profiling.drift import Drift, edge_bins, hour_bins, stability_index, value_bins
from deepfm_jax.profiling.groups import Group, groups_by
from deepfm_jax.profiling.numbers import Numbers, describe_numbers, number_text
from deepfm_jax.schema.columns import Column, Numeric, Timestamp

_TOP = 20
_EPOCH = datetime.datetime(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class ColumnReport:
    """What the training rows hold in one column; counts are of values where a cell has several.

    Attributes:
      name: Of the column.
      kind: Its kind and options, in words.
      rows: Training rows that were counted.
      distinct: Different values; of times, different hours.
      missing: Rows without a value.
      top: The most frequent values; none of times.
      coverage: What has an id at the options of now; None where there is no vocabulary.
      coverages: The same at ``min_count`` 1, 2, 5, 10 and the ``max_size`` of now.
      ranks: (k, share of rows with a value that have one of the k most frequent), of a vocabulary.
      numbers: Of a numeric column.
      first: Earliest time, ISO, of a time column.
      last: Latest time.
      hours: By hour of the day, of a time column.
      days: By date, of a time column.
      drift: By the name of the other split.
    """

    name: str
    kind: str
    rows: int
    distinct: int
    missing: Group
    top: tuple[Group, ...]
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
    """The report of a column from the counts of all splits, ``train`` among them."""
    counted = splits["train"].columns[column.name]
    counts = counted.table()
    others = {
        split: found.columns[column.name].table()
        for split, found in splits.items()
        if split != "train" and found.columns[column.name].seen
    }
    valid = pc.is_valid(counts["value"])
    values, missing = counts.filter(valid), counts.filter(pc.invert(valid))
    total = pc.sum(counts["rows"]).as_py()
    details: dict[str, Any] = {}
    if isinstance(column, Timestamp):
        details |= _times(counted, values, total)
    else:
        details["top"] = _top(values, total)
    if isinstance(column, Numeric) and values.num_rows:
        details["numbers"] = describe_numbers(values)
    kept = None
    if has_vocabulary(column):
        coder = fitted(column, counts)
        kept = coder.vocabulary
        details["coverage"] = coverage(coder, counts)
        details["coverages"] = tuple(
            coverage(fitted(column, counts, min_count=least), counts) for least in MIN_COUNTS
        )
        details["ranks"] = rank_curve(coded_counts(column, counts))
    return ColumnReport(
        name=column.name,
        kind=kind_text(column),
        rows=total,
        distinct=values.num_rows,
        missing=groups_by(np.zeros(missing.num_rows, int), missing, ["missing"], total)[0],
        drift={
            split: _drift(column, counts, other, details.get("numbers"), kept)
            for split, other in others.items()
        },
        **{"top": (), **details},
    )


def kind_text(column: Column) -> str:
    """A column's kind, and the options that are not the kind's own."""
    kind = type(column).__name__.lower()
    options = []
    for field in dataclasses.fields(column):
        value = getattr(column, field.name)
        if field.name == "name" or (value == field.default and field.name != "transform"):
            continue
        told = ",".join(map(str, value)) if isinstance(value, tuple) else value
        options.append(field.name if value is True else f"{field.name}={told}")
    return f"{kind} ({', '.join(options)})" if options else kind


def _sum(counts: pa.Table, name: str) -> int:
    return pc.sum(counts[name]).as_py() or 0


def _top(values: pa.Table, total: int) -> tuple[Group, ...]:
    top = values.sort_by([("rows", "descending"), ("value", "ascending")]).slice(0, _TOP)
    return tuple(
        Group.of(_named(row["value"]), row["rows"], row["labelled"], row["positives"], total)
        for row in top.to_pylist()
    )


def _named(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def _times(counted: ValueCounts, values: pa.Table, total: int) -> dict[str, Any]:
    if counted.first is None or counted.last is None:
        return {}
    hours = values["value"].to_numpy()
    dates = hours // 24
    # Dates without rows are no groups: data of two far days would be nearly all of such.
    found, keys = np.unique(dates, return_inverse=True)
    names = [f"{_time(int(date) * 24 * SECONDS_OF_HOUR):%Y-%m-%d}" for date in found]
    return {
        "first": _time(counted.first).isoformat(sep=" "),
        "last": _time(counted.last).isoformat(sep=" "),
        "hours": groups_by(hours % 24, values, [f"{hour:02}" for hour in range(24)], total),
        "days": groups_by(keys, values, names, total),
    }


def _time(seconds: int | float) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=seconds)


def _drift(
    column: Column,
    train: pa.Table,
    other: pa.Table,
    numbers: Numbers | None,
    kept: pa.Array | None,
) -> Drift:
    unseen = None
    if isinstance(column, Timestamp):
        bins = [hour_bins(counts) for counts in (train, other)]
    elif isinstance(column, Numeric):
        edges = () if numbers is None else numbers.edges
        bins = [edge_bins(edges, counts) for counts in (train, other)]
        unseen = _outside(numbers, other)
    else:
        bins = [value_bins(train, counts) for counts in (train, other)]
        unseen = 1 - known_share(other, column, train["value"].combine_chunks())
    psi, by_chance = stability_index(*bins)
    missing = other.filter(pc.is_null(other["value"]))
    return Drift(
        missing=_sum(missing, "rows") / _sum(other, "rows"),
        unseen=unseen,
        covered=None if kept is None else known_share(other, column, kept),
        psi=psi,
        psi_by_chance=by_chance,
    )


def _outside(numbers: Numbers | None, other: pa.Table) -> float:
    other = other.filter(pc.is_valid(other["value"]))
    total = _sum(other, "rows")
    if not total:
        return 0.0
    if numbers is None:
        return 1.0
    values = other["value"].to_numpy()
    outside = (values < numbers.percentiles[0]) | (values > numbers.percentiles[-1])
    return float(other["rows"].to_numpy()[outside].sum() / total)
