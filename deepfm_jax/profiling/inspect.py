"""Looks at the raw rows of a data set, as ``prepare`` would read them, and encodes nothing."""

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
      dataset: Its name.
      source: Where its rows were read; None where they are simulated.
      label: Name of the label.
      splits: Rows and positive rate of each split.
      rejected: Bad rows of each split.
      columns: One report for each column that is read.
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
    """Reads all rows of a source once for each split, and reports on every column.

    What is held are the distinct values of each column with their counts, however many rows have
    them.

    Args:
      name: Data set, one of ``BUILDERS``.
      source: As for ``datasets.prepare.prepare``.
      options: Likewise; what they change of the encoding decides what is covered.

    Raises:
      UserError: a bad file, row or option, or no training rows.
    """
    options = options or BuildOptions()
    builder_class = find_builder(name, source)
    # A builder wants a folder for what it builds; here nothing is built.
    with tempfile.TemporaryDirectory() as nowhere:
        builder = builder_class(options=options, source=source, data_dir=nowhere)
        splits: dict[str, SplitCounts] = {}
        for split, read in builder.read_splits().items():
            report = RowReport()
            splits[split] = count_split(_shown(read(report), f"inspect {split}"), builder.schema)
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


def _shown(tables: Iterable[pa.Table], title: str) -> Iterator[pa.Table]:
    """The tables, with a progress bar of their rows."""
    with tqdm(desc=title, unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)
