"""Rows and positive rows of each distinct value, counted while the rows of a split pass."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text import decoded
from deepfm_jax.schema import Column, Schema

# All rows of a value, those that have the label, and those of label 1.
COUNTS = ("rows", "labelled", "positives")
# Counts that wait to be merged, beside as many as are merged already.
_WAITING = 1 << 17


class ValueCounts:
    """Rows and positives of each value of a column; what it holds grows with distinct values alone.

    Attributes:
      first: Least value that passed, None before any; of numbers and times.
      last: Greatest.
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
        """Counts rows: typed cells, and labels of 0 and 1, or NaN where a row has none."""
        values = decoded(values)
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            values, labels = _elements(values, labels)
        if pa.types.is_floating(values.type):
            values = pc.add(values, 0.0)  # -0 and 0 would be two values.
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
        self._waiting.append(_added_up(table))
        merged = 0 if self._merged is None else self._merged.num_rows
        if sum(part.num_rows for part in self._waiting) > max(merged, _WAITING):
            self.table()

    def table(self) -> pa.Table:
        """Columns ``value`` (null: missing) and ``COUNTS``, by value ascending.

        The values of a time column are hours since 1970.
        """
        parts = [*([] if self._merged is None else [self._merged]), *self._waiting]
        if self._waiting:
            self._merged, self._waiting = _added_up(pa.concat_tables(parts)).sort_by("value"), []
        assert self._merged is not None  # Asked of columns that were seen.
        return self._merged

    def _widen(self, values: pa.Array) -> None:
        ends = pc.min_max(values).as_py()
        if ends["min"] is not None:
            self.first = ends["min"] if self.first is None else min(self.first, ends["min"])
            self.last = ends["max"] if self.last is None else max(self.last, ends["max"])


@dataclasses.dataclass
class SplitCounts:
    """What was counted of one split.

    Attributes:
      columns: By name: all that are read, but for the label.
      rows: Good rows.
      labelled: Those that have the label.
      positives: Those of label 1.
      rejected: Bad rows that were left out.
    """

    columns: dict[str, ValueCounts]
    rows: int = 0
    labelled: int = 0
    positives: int = 0
    rejected: int = 0


def inspected_columns(schema: Schema) -> tuple[Column, ...]:
    """The columns that a report is made of."""
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
            # A time that no field is made of may be absent.
            if name in table.column_names and len(labels):
                column.add(table[name].combine_chunks(), labels)
    return counts


def _elements(lists: pa.Array, labels: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The values of cells that hold several, with the labels of their rows; empty is missing."""
    empty = pc.equal(pc.fill_null(pc.list_value_length(lists), 0), 0)
    found = pc.list_flatten(lists)
    if pa.types.is_struct(found.type):  # Of a value and its weight.
        found = found.field("value")
    of_row = pc.list_parent_indices(lists).to_numpy()
    missing = labels[empty.to_numpy(zero_copy_only=False)]
    values = pa.concat_arrays([found, pa.nulls(len(missing), found.type)])
    return values, np.concatenate([labels[of_row], missing])


def _added_up(counts: pa.Table) -> pa.Table:
    added = counts.group_by("value").aggregate([(name, "sum") for name in COUNTS])
    added = added.rename_columns({f"{name}_sum": name for name in COUNTS})
    return added.select(["value", *COUNTS])
