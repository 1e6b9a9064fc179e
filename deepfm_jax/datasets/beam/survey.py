"""Reads one file of a source in a Beam worker: counts rows and values, and keeps bad rows.

Beam can only return results as files, so workers write their findings to a shared folder
(``Findings``). A restarted worker writes the same files again.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import contextlib
import dataclasses
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.hashing import hash_integers, hash_text
from deepfm_jax.coders.vocabulary import merge_counts
from deepfm_jax.datasets.splitting import Choose, ReadFiles
from deepfm_jax.encoding.counting import ValueCounter
from deepfm_jax.errors import UserError
from deepfm_jax.files import write_atomically
from deepfm_jax.readers.paths import source_path
from deepfm_jax.readers.row_checker import Fault, RejectedRow, RowReport
from deepfm_jax.readers.sources import read_file
from deepfm_jax.schema import Column, Field

# Number of distinct values, over all columns, that a worker counts before it passes them on.
_HELD_VALUES = 1 << 23


@dataclasses.dataclass(frozen=True)
class FileJob:
    """One file of one source.

    Attributes:
      source: Index of the source.
      index: Index of the file in the source.
      path: Path of the file.
      first_row: Number of good rows of the source before the file; None if not known yet.
    """

    source: int
    index: int
    path: str
    first_row: int | None = None


@dataclasses.dataclass(frozen=True)
class FileFinding:
    """What was found in a file.

    Attributes:
      read: Number of rows read.
      kept: Number of good rows.
      error: The error that stopped reading before the end of the file, if any.
      shares: For each split whose rows could be identified, the number of its rows, of positives of
        each label, and of rows without each label.
    """

    read: int
    kept: int
    error: str | None
    shares: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """The folder to which the workers of one pass write what they found."""

    folder: pathlib.Path

    def finding(self, job: FileJob) -> FileFinding:
        """What was found in a file.

        Raises:
          UserError: it is missing, so the workers wrote to another folder of this name.
        """
        path = self._path("file", job, "json")
        if not path.is_file():
            raise UserError(
                f"{path.parent.parent}: the Beam workers did not write there; --out must be a "
                "folder that this process and all workers share under the same path"
            )
        content = json.loads(path.read_text())
        shares = {split: tuple(counts) for split, counts in content.pop("shares").items()}
        return FileFinding(**content, shares=shares)

    def write_finding(self, job: FileJob, finding: FileFinding) -> None:
        """Writes what was found in a file."""
        text = json.dumps(dataclasses.asdict(finding))
        write_atomically(self._path("file", job, "json"), text.encode())

    def rejected(self, job: FileJob) -> Iterator[RejectedRow]:
        """The bad rows of a file up to the limit, in file order."""
        path = self._path("rejected", job, "jsonl")
        if path.is_file():
            with path.open() as lines:
                for line in lines:
                    source, unit, position, fault, text = json.loads(line)
                    yield RejectedRow(source, unit, position, Fault(*fault), text)

    @contextlib.contextmanager
    def write_rejected(self, job: FileJob) -> Iterator[Callable[[RejectedRow], None]]:
        """Yields a function that records a bad row; the records are complete on exit."""
        path = self._path("rejected", job, "jsonl")
        temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        stream = None

        def add(row: RejectedRow) -> None:
            nonlocal stream
            stream = stream or temporary.open("w")
            stream.write(json.dumps(row) + "\n")

        try:
            yield add
        finally:
            if stream is not None:
                stream.close()
                os.replace(temporary, path)

    def counts(self, column: int) -> list[pa.Table]:
        """The counted values of a column, without duplicates."""
        paths = sorted(self.folder.glob(f"counts-{column}-*.arrow"))
        return [from_bytes(path.read_bytes()) for path in paths]

    def write_counts(self, column: int, part: int, counts: pa.Table) -> None:
        """Writes the counted values of a column whose hash falls in ``part``."""
        write_atomically(self.folder / f"counts-{column}-{part}.arrow", to_bytes(counts))

    def _path(self, kind: str, job: FileJob, suffix: str) -> pathlib.Path:
        return self.folder / f"{kind}-{job.source}-{job.index}.{suffix}"


class Survey(beam.DoFn):
    """Reads files; outputs ``((column, part), counts)`` of the counted columns."""

    def __init__(
        self,
        sources: Sequence[tuple[ReadFiles, Mapping[str, Choose | None]]],
        findings: Findings,
        counted: tuple[str, Mapping[str, Sequence[Column]]] | None,
        parts: int,
    ):
        """Surveys files of ``sources``.

        Args:
          sources: How to read each source, and which of its rows are in each split; None for all.
          findings: Where to write what is found.
          counted: A split, and what to count in its rows; see ``ValueCounter``.
          parts: Number of parts into which the values of a column are split by their hash.
        """
        self._sources = sources
        self._findings = findings
        self._counted = counted
        self._parts = parts

    def process(self, job: FileJob) -> Iterator[Any]:
        read, chosen = self._sources[job.source]
        known = {
            split: choose
            for split, choose in chosen.items()
            if job.first_row is not None or choose is None or not choose.BY_PLACE
        }
        split, counted = self._counted or ("", {})
        counter = ValueCounter(counted) if split in known else None
        labels = [label.name for label in read.schema.labels]
        shares = {name: [0] * (1 + 2 * len(labels)) for name in known}
        first_row = job.first_row or 0
        error = None
        with self._findings.write_rejected(job) as add_rejected:
            report = RowReport(on_rejected=add_rejected)
            tables = read_file(
                source_path(job.path), read.schema, max_bad_rows=read.max_bad_rows, report=report
            )
            try:
                for table in tables:
                    for name, share in shares_of(table, known, first_row):
                        counts = shares[name]
                        counts[0] += share.num_rows
                        for task, label in enumerate(labels, start=1):
                            counts[task] += int(pc.sum(share[label]).as_py() or 0)
                            counts[task + len(labels)] += share[label].null_count
                        if name == split and counter is not None:
                            counter.add(share)
                    first_row += table.num_rows
                    if counter is not None and counter.size > _HELD_VALUES:
                        yield from self._parted(counter)
                        counter = ValueCounter(counted)
            except UserError as mistake:
                error = str(mistake)
        if counter is not None:
            yield from self._parted(counter)
        found = {name: tuple(counts) for name, counts in shares.items()}
        finding = FileFinding(report.read, report.kept, error, found)
        self._findings.write_finding(job, finding)

    def _parted(self, counter: ValueCounter) -> Iterator[Any]:
        for column, counts in enumerate(counter.counts().values()):
            part_of = _hashes(counts["value"].combine_chunks()) % np.uint64(self._parts)
            for part in np.unique(part_of) if len(part_of) else [0]:
                yield (column, int(part)), to_bytes(counts.filter(pa.array(part_of == part)))


def shares_of(
    table: pa.Table, chosen: Mapping[str, Choose | None], first_row: int
) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each split; ``first_row`` good rows of the source precede the table."""
    for split, choose in chosen.items():
        if choose is None:
            yield split, table
        else:
            yield split, table.filter(pa.array(choose(table, first_row)))


class MergeCounts(beam.CombineFn):
    """Adds up the counts of equal values."""

    def create_accumulator(self) -> list[pa.Table]:
        return []

    def add_input(self, accumulator: list[pa.Table], element: bytes) -> list[pa.Table]:
        return _merged([*accumulator, from_bytes(element)], at_least=16)

    def merge_accumulators(self, accumulators) -> list[pa.Table]:
        return _merged([table for tables in accumulators for table in tables], at_least=16)

    def extract_output(self, accumulator: list[pa.Table]) -> bytes:
        return to_bytes(merge_counts(accumulator))


def _merged(tables: list[pa.Table], at_least: int) -> list[pa.Table]:
    return [merge_counts(tables)] if len(tables) >= at_least else tables


def write_counts(
    element: tuple[tuple[int, int], bytes], findings: Findings, fields: Sequence[Field | None]
) -> None:
    """Writes the merged counts of a part of one column (or of several counted together).

    For a field with a vocabulary, only values that may be in it are written: all counts of a value
    are in one part, so a value that is too rare there is too rare overall.
    """
    (column, part), data = element
    counts, field = from_bytes(data), fields[column]
    if field is not None:
        counts = field.coder.kept_counts(field, counts)
    findings.write_counts(column, part, counts)


def _hashes(values: pa.Array) -> np.ndarray:
    if pa.types.is_string(values.type):
        hashes = hash_text(values)
    else:
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
        # The bits of a float, since 0.25 and 0.5 round to the same integer.
        hashes = hash_integers(numbers.view(np.int64) if numbers.dtype == np.float64 else numbers)
    return np.where(pc.is_null(values).to_numpy(zero_copy_only=False), np.uint64(0), hashes)


def to_bytes(table: pa.Table) -> bytes:
    """The table in Arrow's file format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes) -> pa.Table:
    """Reads a table from the output of ``to_bytes``."""
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()
