"""Inspects the raw rows of a data set as ``prepare`` would read them, without encoding them."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator

import pyarrow as pa
from tqdm import tqdm

from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.selection import find_builder
from deepfm_jax.errors import UserError
from deepfm_jax.profiling.columns import ColumnReport, report_column
from deepfm_jax.profiling.counts import SplitCounts, count_split, inspected_columns
from deepfm_jax.profiling.groups import Group
from deepfm_jax.readers.row_checker import RowReport


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The report of a data set.

    Attributes:
      dataset: Name of the data set.
      source: Where the rows were read from; None if they are simulated.
      label: Name of the label.
      splits: Rows and positive rate of each split.
      rejected: Number of bad rows of each split.
      columns: One report for each column with a profile.
    """

    dataset: str
    source: str | None
    label: str
    splits: tuple[Group, ...]
    rejected: tuple[int, ...]
    columns: tuple[ColumnReport, ...]


def inspect_source(
    name: str,
    *,
    source: str | os.PathLike[str] | None = None,
    options: BuildOptions | None = None,
) -> Inspection:
    """Reads all rows of a source once per split, and reports on every column.

    Memory holds the distinct values of each column with their counts, for any number of rows.

    Args:
      name: Name of the data set, one of ``BUILDERS``.
      source: As in ``datasets.prepare.prepare``.
      options: As in ``datasets.prepare.prepare``; the coverage depends on them.

    Raises:
      UserError: a file, row or option is bad, or there are no training rows.
    """
    options = options or BuildOptions()
    builder_class = find_builder(name, source)
    # A builder needs an output folder, but nothing is built here.
    with tempfile.TemporaryDirectory() as unused:
        builder = builder_class(options=options, source=source, data_dir=unused)
        splits: dict[str, SplitCounts] = {}
        for split, read in builder.read_splits().items():
            report = RowReport()
            tables = _with_progress(read(report), f"inspect {split}")
            splits[split] = count_split(tables, builder.schema)
            splits[split].rejected = report.rejected
    if not splits["train"].rows:
        raise UserError("the training split has no rows to inspect")
    total = sum(counts.rows for counts in splits.values())
    columns = inspected_columns(builder.schema)
    return Inspection(
        dataset=name,
        source=None if source is None else os.fspath(source),
        label=builder.schema.label.name,
        splits=tuple(
            Group.of(split, counts.rows, counts.labelled, counts.positives, total)
            for split, counts in splits.items()
        ),
        rejected=tuple(counts.rejected for counts in splits.values()),
        columns=tuple(
            report_column(column, splits)
            for column in columns
            if splits["train"].columns[column.name].seen
        ),
    )


def _with_progress(tables: Iterable[pa.Table], title: str) -> Iterator[pa.Table]:
    """Yields the tables, with a progress bar of their rows."""
    with tqdm(desc=title, unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)
