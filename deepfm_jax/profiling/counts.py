"""Counts rows and positives of each distinct value in one pass over a split."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text import decoded
from deepfm_jax.schema import Column, Schema

# All rows of a value, the rows that have the label, and the rows with label 1.
COUNTS = ("rows", "labelled", "positives")
# Counts that may wait to be merged, unless more are merged already.
_WAITING = 1 << 17


class ValueCounts:
    """Rows and positives of each value of a column; memory grows only with distinct values.

    Attributes:
      first: Smallest number or earliest time so far; None before any.
      last: Largest number or latest time.
    """

    def __init__(self, column: Column):
        self._column = column
        self._merged: pa.Table | None = None
        self._waiting: list[pa.Table] = []
        self.first: int | float | None = None
        self.last: int | float | None = None

    @property
    def seen(self) -> bool:
        """Whether any row was counted."""
        return self._merged is not None or bool(self._waiting)

    def add(self, values: pa.Array, labels: np.ndarray) -> None:
        """Counts rows, given typed cells and labels: 0, 1, or NaN if a row has no label."""
        values = decoded(values)
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            values, labels = _elements(values, labels)
        if pa.types.is_floating(values.type):
            values = pc.add(values, 0.0)  # Turns -0 into 0, which would count separately.
        if not pa.types.is_string(values.type):
            self._widen(values)
        table = pa.table(
            {
                "value": self._column.profiled_values(values),
                "rows": np.ones(len(labels), np.int64),
                "labelled": (~np.isnan(labels)).astype(np.int64),
                "positives": (labels > 0).astype(np.int64),
            }
        )
        self._waiting.append(_sum_by_value(table))
        merged = 0 if self._merged is None else self._merged.num_rows
        if sum(part.num_rows for part in self._waiting) > max(merged, _WAITING):
            self.table()

    def table(self) -> pa.Table:
        """The counts: columns ``value`` (null: missing) and ``COUNTS``, sorted by value.

        The values of a time column are hours since 1970.
        """
        parts = [*([] if self._merged is None else [self._merged]), *self._waiting]
        if self._waiting:
            merged = _sum_by_value(pa.concat_tables(parts))
            self._merged, self._waiting = merged.sort_by("value"), []
        assert self._merged is not None  # Callers check ``seen``.
        return self._merged

    def _widen(self, values: pa.Array) -> None:
        ends = pc.min_max(values).as_py()
        if ends["min"] is not None:
            self.first = ends["min"] if self.first is None else min(self.first, ends["min"])
            self.last = ends["max"] if self.last is None else max(self.last, ends["max"])


@dataclasses.dataclass
class SplitCounts:
    """Counts of one split.

    Attributes:
      columns: Counts of each column with a profile, by name.
      rows: Number of good rows.
      labelled: Number of rows that have the label.
      positives: Number of rows with label 1.
      rejected: Number of bad rows, which are left out.
    """

    columns: dict[str, ValueCounts]
    rows: int = 0
    labelled: int = 0
    positives: int = 0
    rejected: int = 0


def inspected_columns(schema: Schema) -> tuple[Column, ...]:
    """The columns that a report covers."""
    return tuple(c for c in schema.columns if c.profile is not None)


def count_split(tables: Iterable[pa.Table], schema: Schema) -> SplitCounts:
    """Counts typed rows (see ``readers.sources``) of one split, in one pass."""
    counts = SplitCounts({column.name: ValueCounts(column) for column in inspected_columns(schema)})
    for table in tables:
        labels = table[schema.label.name].to_numpy()
        counts.rows += len(labels)
        counts.labelled += int((~np.isnan(labels)).sum())
        counts.positives += int((labels > 0).sum())
        for name, column in counts.columns.items():
            # A time without parts may be absent from the table.
            if name in table.column_names and len(labels):
                column.add(table[name].combine_chunks(), labels)
    return counts


def _elements(lists: pa.Array, labels: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The values of lists, with the labels of their rows; an empty list counts as missing."""
    empty = pc.equal(pc.fill_null(pc.list_value_length(lists), 0), 0)
    found = pc.list_flatten(lists)
    if pa.types.is_struct(found.type):  # A value and its weight.
        found = found.field("value")
    of_row = pc.list_parent_indices(lists).to_numpy()
    missing = labels[empty.to_numpy(zero_copy_only=False)]
    values = pa.concat_arrays([found, pa.nulls(len(missing), found.type)])
    return values, np.concatenate([labels[of_row], missing])


def _sum_by_value(counts: pa.Table) -> pa.Table:
    sums = counts.group_by("value").aggregate([(name, "sum") for name in COUNTS])
    sums = sums.rename_columns({f"{name}_sum": name for name in COUNTS})
    return sums.select(["value", *COUNTS])
