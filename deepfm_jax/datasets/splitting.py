"""Splits unsplit rows: by a seeded draw, by time, or by their order.

The split of a row depends only on the row and on the number of good rows before it, so the files of
a source can also be read in parallel (see ``datasets.beam.passes``).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.text import decoded
from deepfm_jax.encoding.counting import count_values
from deepfm_jax.errors import UserError
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import Files, read_tables
from deepfm_jax.schema import Column, Schema

# Reads a split from its start; called once per pass, with a report to fill or None.
ReadSplit: TypeAlias = Callable[[RowReport | None], Iterator[pa.Table]]
# The range of each split, as shares of the rows.
Shares: TypeAlias = Mapping[str, tuple[float, float]]
SHARES: Shares = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
HALVES: Shares = {"valid": (0.0, 0.5), "test": (0.5, 1.0)}
_SEED = 2017


@dataclasses.dataclass(frozen=True)
class ReadFiles:
    """Reads all rows of one or several files; see ``sources.read_tables``."""

    path: Files
    schema: Schema
    max_bad_rows: int = 0

    def __call__(self, report: RowReport | None = None) -> Iterator[pa.Table]:
        return read_tables(self.path, self.schema, max_bad_rows=self.max_bad_rows, report=report)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows whose draw, uniform in [0, 1) with a fixed seed, falls between two bounds."""

    BY_PLACE: ClassVar[bool] = True
    low: float
    high: float

    def __call__(self, table: pa.Table, first_row: int) -> np.ndarray:
        stream = np.random.PCG64(_SEED)
        stream.advance(first_row)  # A draw takes one step of the stream.
        draw = np.random.Generator(stream).random(table.num_rows)
        return (self.low <= draw) & (draw < self.high)


@dataclasses.dataclass(frozen=True)
class Between:
    """Rows whose ``column`` is between ``first`` and ``last``, inclusive."""

    BY_PLACE: ClassVar[bool] = False
    column: str
    first: int | float
    last: int | float

    def __call__(self, table: pa.Table, first_row: int) -> np.ndarray:
        del first_row
        value = decoded(table[self.column].combine_chunks()).to_numpy()
        return (self.first <= value) & (value <= self.last)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """Rows at positions ``start`` to ``stop`` - 1, counted from 0."""

    BY_PLACE: ClassVar[bool] = True
    start: int
    stop: int

    def __call__(self, table: pa.Table, first_row: int) -> np.ndarray:
        place = np.arange(first_row, first_row + table.num_rows)
        return (self.start <= place) & (place < self.stop)


# Which rows of a source belong to a split: returns a mask of the rows of a table, given the number
# of good rows before it. BY_PLACE says whether that number matters, besides the content of a row.
Choose: TypeAlias = Drawn | Between | Ranked


@dataclasses.dataclass(frozen=True)
class ReadShare:
    """Reads the rows of a source that belong to one of its splits.

    Attributes:
      read: Reads the source.
      choose: Selects the rows of the split.
      reports_rejected: Whether to report the bad rows of the source, which belong to no split.
    """

    read: ReadSplit
    choose: Choose
    reports_rejected: bool

    def __call__(self, report: RowReport | None = None) -> Iterator[pa.Table]:
        report = RowReport() if report is None else report
        whole = RowReport(on_rejected=report.on_rejected if self.reports_rejected else None)
        first_row = 0
        for table in self.read(whole):
            share = table.filter(pa.array(self.choose(table, first_row)))
            first_row += table.num_rows
            report.read += share.num_rows
            report.kept += share.num_rows
            yield share
        if self.reports_rejected:
            report.read += whole.rejected
            report.rejected = whole.rejected
            report.first_errors = whole.first_errors


class Passes:
    """Passes over all rows for what a split must know first."""

    def count_values(self, read: ReadSplit, column: Column) -> pa.Table:
        """How often each value of ``column`` occurs: a table of ``value`` and ``count``."""
        return count_values(read(None), {column.name: (column,)})[column.name]

    def count_rows(self, read: ReadSplit) -> int:
        """Number of good rows."""
        return sum(table.num_rows for table in read(None))


def split_by_draw(read: ReadSplit, shares: Shares = SHARES) -> dict[str, ReadSplit]:
    """Assigns each good row to a split by a draw, which is always the same for a source."""
    return _shares(read, {split: Drawn(low, high) for split, (low, high) in shares.items()})


def split_in_order(
    read: ReadSplit, splits: Sequence[str], passes: Passes | None = None
) -> dict[str, ReadSplit]:
    """Cuts the good rows, in order, into splits of equal size.

    One pass over the rows counts them. If they do not divide evenly, earlier splits get one row
    more.
    """
    rows, parts = (passes or Passes()).count_rows(read), len(splits)
    ends = [-(-rows * part // parts) for part in range(parts + 1)]
    return _shares(
        read, {split: Ranked(*ends[part : part + 2]) for part, split in enumerate(splits)}
    )


def split_by_time(
    read: ReadSplit, schema: Schema, column: str, passes: Passes | None = None
) -> dict[str, ReadSplit]:
    """Splits rows by time: the first 80% are train, the next 10% valid, the last 10% test.

    Rows with the same time stay together, in the split of the first of them. One pass over the rows
    counts the rows of each time.

    Raises:
      UserError: ``column`` does not hold times or numbers, a row has no time, or there are too few
        distinct times for three splits.
    """
    kinds = {kind.name: kind for kind in schema.columns if kind.is_ordered}
    if column not in kinds:
        known = f"columns that do: {', '.join(kinds)}" if kinds else "no column does"
        raise UserError(f"time_column {column!r} does not hold times or numbers; {known}")
    counts = (passes or Passes()).count_values(read, kinds[column]).sort_by("value")
    if counts["value"].null_count:
        timeless = counts.filter(counts["value"].is_null())["count"][0].as_py()
        raise UserError(
            f"time_column {column!r}: rows without a time ({timeless:,}) belong to no split; "
            "remove them, or split by a draw, without time_column"
        )
    times, rows = counts["value"].to_numpy(), counts["count"].to_numpy()
    # The share of rows that are earlier than each time.
    earlier = (np.cumsum(rows) - rows) / rows.sum()
    chosen = {}
    for split, (low, high) in SHARES.items():
        inside = times[(low <= earlier) & (earlier < high)]
        if not len(inside):
            raise UserError(
                f"time_column {column!r} has too few distinct times ({len(times)}) for splits of "
                f"80%, 10% and 10%: {split!r} would be empty"
            )
        chosen[split] = Between(column, inside[0].item(), inside[-1].item())
    return _shares(read, chosen)


def _shares(read: ReadSplit, chosen: Mapping[str, Choose]) -> dict[str, ReadSplit]:
    # A bad row belongs to no split; it is reported once, with the first split.
    first = next(iter(chosen))
    return {split: ReadShare(read, choose, split == first) for split, choose in chosen.items()}
