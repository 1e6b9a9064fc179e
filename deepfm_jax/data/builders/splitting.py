"""Splits of rows that come without any: by a seeded draw for each row, or by time."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from deepfm_jax.data.cells import decoded
from deepfm_jax.data.encoder import count_values
from deepfm_jax.data.row_checker import RowReport
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Categorical, Numeric, Schema, Timestamp

# Reads a split from its start; called again for each pass, with a report to fill or None.
ReadSplit: TypeAlias = Callable[[RowReport | None], Iterator[pa.Table]]
# Of each split its share of the rows, from where to where.
Shares: TypeAlias = Mapping[str, tuple[float, float]]
SHARES: Shares = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}
HALVES: Shares = {"valid": (0.0, 0.5), "test": (0.5, 1.0)}
_SEED = 2017

# Which rows of a table belong to a split; called with the tables of a source in their order.
_Choose: TypeAlias = Callable[[pa.Table], np.ndarray]


def split_by_draw(read: ReadSplit, shares: Shares = SHARES) -> dict[str, ReadSplit]:
    """Splits that each good row falls into by a draw, which is always the same for a source."""

    def chooser(split: str) -> _Choose:
        low, high = shares[split]
        rng = np.random.default_rng(_SEED)

        def chosen(table: pa.Table) -> np.ndarray:
            draw = rng.random(table.num_rows)
            return (low <= draw) & (draw < high)

        return chosen

    return _splits(read, shares, chooser)


def split_by_time(read: ReadSplit, schema: Schema, column: str) -> dict[str, ReadSplit]:
    """The first 80% of the rows in time as train, the next 10% as valid, the last 10% as test.

    Rows of one time stay together, in the split in which the first of them falls. One pass over
    the rows counts those of each time.

    Raises:
      UserError: ``column`` does not hold times or numbers, a row has none, or there are too few
        different ones for three splits.
    """
    kinds = {
        kind.name: kind
        for kind in schema.columns
        if isinstance(kind, Timestamp | Numeric)
        or (isinstance(kind, Categorical) and kind.dtype != "string")
    }
    if column not in kinds:
        known = f"those that do are {', '.join(kinds)}" if kinds else "no column does"
        raise UserError(f"time_column {column!r} does not hold times or numbers; {known}")
    counts = count_values(read(None), [column])[column].sort_by("value")
    if counts["value"].null_count:
        raise UserError(f"time_column {column!r}: a row has no time, and belongs to no split")
    times, rows = counts["value"].to_numpy(), counts["count"].to_numpy()
    # The share of the rows that are earlier than each time.
    earlier = (np.cumsum(rows) - rows) / rows.sum()
    ranges = {}
    for split, (low, high) in SHARES.items():
        inside = times[(low <= earlier) & (earlier < high)]
        if not len(inside):
            raise UserError(
                f"time_column {column!r} has too few different times ({len(times)}) for splits of "
                f"80%, 10% and 10%: {split!r} would be empty"
            )
        ranges[split] = (inside[0], inside[-1])

    def chooser(split: str) -> _Choose:
        first, last = ranges[split]

        def chosen(table: pa.Table) -> np.ndarray:
            time = decoded(table[column].combine_chunks()).to_numpy()
            return (first <= time) & (time <= last)

        return chosen

    return _splits(read, SHARES, chooser)


def _splits(
    read: ReadSplit, shares: Shares, chooser: Callable[[str], _Choose]
) -> dict[str, ReadSplit]:
    # A bad row falls into no split; it is told once, with the first.
    first = next(iter(shares))
    return {
        split: functools.partial(_read_share, read, chooser, split, split == first)
        for split in shares
    }


def _read_share(
    read: ReadSplit,
    chooser: Callable[[str], _Choose],
    split: str,
    tells_rejected: bool,
    report: RowReport | None,
) -> Iterator[pa.Table]:
    report = RowReport() if report is None else report
    whole = RowReport(on_rejected=report.on_rejected if tells_rejected else None)
    chosen = chooser(split)
    for table in read(whole):
        share = table.filter(pa.array(chosen(table)))
        report.read += share.num_rows
        report.kept += share.num_rows
        yield share
    if tells_rejected:
        report.read += whole.rejected
        report.rejected = whole.rejected
        report.first_errors = whole.first_errors
