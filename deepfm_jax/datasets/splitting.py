"""Splits of rows that come without any: by a seeded draw, by time, or by their order.

Which split a row is in follows from the row and from the number of good rows before it, so the
files of a source can also be read side by side (see ``datasets.beam.passes``).
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

# Reads a split from its start; called again for each pass, with a report to fill or None.
ReadSplit: TypeAlias = Callable[[RowReport | None], Iterator[pa.Table]]
# Of each split its share of the rows, from where to where.
Shares: TypeAlias = Mapping[str, tuple[float, float]]
SHARES: Shares = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
HALVES: Shares = {"valid": (0.0, 0.5), "test": (0.5, 1.0)}
_SEED = 2017


@dataclasses.dataclass(frozen=True)
class ReadFiles:
    """Reads all rows of a file, or of several; see ``sources.read_tables``."""

    path: Files
    schema: Schema
    max_bad_rows: int = 0

    def __call__(self, report: RowReport | None = None) -> Iterator[pa.Table]:
        return read_tables(self.path, self.schema, max_bad_rows=self.max_bad_rows, report=report)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows whose draw, uniform from 0 to 1 and always the same, falls between two bounds."""

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
    """Rows whose ``column`` is between ``first`` and ``last``, both included."""

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
    """Rows from the place ``start`` (from 0) to before ``stop``."""

    BY_PLACE: ClassVar[bool] = True
    start: int
    stop: int

    def __call__(self, table: pa.Table, first_row: int) -> np.ndarray:
        place = np.arange(first_row, first_row + table.num_rows)
        return (self.start <= place) & (place < self.stop)


# Which rows of a source belong to a split: gives a mask of the rows of a table, told how many good
# rows come before it. BY_PLACE says whether that number has a say, and not only what a row holds.
Choose: TypeAlias = Drawn | Between | Ranked


@dataclasses.dataclass(frozen=True)
class ReadShare:
    """Reads the rows of a source that belong to one of its splits.

    Attributes:
      read: The source.
      choose: Which rows those are.
      tells_rejected: Whether the bad rows of the source, which fall into no split, are told here.
    """

    read: ReadSplit
    choose: Choose
    tells_rejected: bool

    def __call__(self, report: RowReport | None = None) -> Iterator[pa.Table]:
        report = RowReport() if report is None else report
        whole = RowReport(on_rejected=report.on_rejected if self.tells_rejected else None)
        first_row = 0
        for table in self.read(whole):
            share = table.filter(pa.array(self.choose(table, first_row)))
            first_row += table.num_rows
            report.read += share.num_rows
            report.kept += share.num_rows
            yield share
        if self.tells_rejected:
            report.read += whole.rejected
            report.rejected = whole.rejected
            report.first_errors = whole.first_errors


class Passes:
    """What a way of splitting has to know of all rows first, by a pass over them."""

    def count_values(self, read: ReadSplit, column: Column) -> pa.Table:
        """How often each value of ``column`` stands in the rows; ``value`` and ``count``."""
        return count_values(read(None), {column.name: (column,)})[column.name]

    def count_rows(self, read: ReadSplit) -> int:
        """How many good rows there are."""
        return sum(table.num_rows for table in read(None))


def split_by_draw(read: ReadSplit, shares: Shares = SHARES) -> dict[str, ReadSplit]:
    """Splits that each good row falls into by a draw, which is always the same for a source."""
    return _shares(read, {split: Drawn(low, high) for split, (low, high) in shares.items()})


def split_in_order(
    read: ReadSplit, splits: Sequence[str], passes: Passes | None = None
) -> dict[str, ReadSplit]:
    """The first good rows as the first split, and so on, in equal parts.

    One pass over the rows counts them. Where they do not divide, earlier splits have a row more.
    """
    rows, parts = (passes or Passes()).count_rows(read), len(splits)
    ends = [-(-rows * part // parts) for part in range(parts + 1)]
    return _shares(
        read, {split: Ranked(*ends[part : part + 2]) for part, split in enumerate(splits)}
    )


def split_by_time(
    read: ReadSplit, schema: Schema, column: str, passes: Passes | None = None
) -> dict[str, ReadSplit]:
    """The first 80% of the rows in time as train, the next 10% as valid, the last 10% as test.

    Rows of one time stay together, in the split in which the first of them falls. One pass over
    the rows counts those of each time.

    Raises:
      UserError: ``column`` does not hold times or numbers, a row has none, or there are too few
        different ones for three splits.
    """
    kinds = {kind.name: kind for kind in schema.columns if kind.is_ordered}
    if column not in kinds:
        known = f"those that do are {', '.join(kinds)}" if kinds else "no column does"
        raise UserError(f"time_column {column!r} does not hold times or numbers; {known}")
    counts = (passes or Passes()).count_values(read, kinds[column]).sort_by("value")
    if counts["value"].null_count:
        timeless = counts.filter(counts["value"].is_null())["count"][0].as_py()
        raise UserError(
            f"time_column {column!r}: rows without a time ({timeless:,}) belong to no split; leave "
            "them out, or split by a draw, without a time_column"
        )
    times, rows = counts["value"].to_numpy(), counts["count"].to_numpy()
    # The share of the rows that are earlier than each time.
    earlier = (np.cumsum(rows) - rows) / rows.sum()
    chosen = {}
    for split, (low, high) in SHARES.items():
        inside = times[(low <= earlier) & (earlier < high)]
        if not len(inside):
            raise UserError(
                f"time_column {column!r} has too few different times ({len(times)}) for splits of "
                f"80%, 10% and 10%: {split!r} would be empty"
            )
        chosen[split] = Between(column, inside[0].item(), inside[-1].item())
    return _shares(read, chosen)


def _shares(read: ReadSplit, chosen: Mapping[str, Choose]) -> dict[str, ReadSplit]:
    # A bad row falls into no split; it is told once, with the first.
    first = next(iter(chosen))
    return {split: ReadShare(read, choose, split == first) for split, choose in chosen.items()}
