"""Passes of Beam pipelines over the files of sources, with their findings in file order."""

# pyright: reportMissingImports=false

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import apache_beam as beam
import pyarrow as pa

from deepfm_jax.coders.vocabulary import merge_counts
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.beam.survey import (
    FileFinding,
    FileJob,
    Findings,
    MergeCounts,
    Survey,
    write_counts,
)
from deepfm_jax.datasets.splitting import Choose, Passes, ReadFiles, ReadSplit
from deepfm_jax.encoding.counting import check_seen
from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import source_path, stored_bytes
from deepfm_jax.readers.row_checker import KEPT_MESSAGES, RowReport
from deepfm_jax.readers.sources import check_files, check_not_empty
from deepfm_jax.schema import Column, Field

# Bytes of raw files per part of a column's values; a worker merges one part at a time.
_BYTES_OF_PART = 1 << 30


@dataclasses.dataclass(frozen=True)
class Source:
    """All rows of one source, and the splits that they contain.

    Attributes:
      read: How to read the source.
      chosen: Which rows are in each split; None for all.
    """

    read: ReadFiles
    chosen: dict[str, Choose | None]


@dataclasses.dataclass(frozen=True)
class SourceFinding:
    """What a pass found in a source.

    Attributes:
      jobs: The files, in order, with what was known before the pass.
      files: What was found in each file.
      findings: Folder with the rejected rows.
    """

    jobs: tuple[FileJob, ...]
    files: tuple[FileFinding, ...]
    findings: Findings

    def check(self, read: ReadFiles) -> None:
        """Applies the checks that reading the files one after the other would apply.

        Raises:
          UserError: reading the files one after the other would raise it first.
        """
        before = 0
        for job, file in zip(self.jobs, self.files, strict=True):
            room = read.max_bad_rows - before
            # A single file may have as many bad rows as all files together are allowed.
            beyond = next((r for i, r in enumerate(self.findings.rejected(job)) if i == room), None)
            if beyond is not None:
                raise beyond.beyond(read.max_bad_rows)
            if file.error is not None:
                raise UserError(file.error)
            before += file.read - file.kept
        check_not_empty(read.path, [source_path(job.path) for job in self.jobs], self.read)

    @property
    def read(self) -> int:
        """Number of rows read."""
        return sum(file.read for file in self.files)

    @property
    def kept(self) -> int:
        """Number of good rows."""
        return sum(file.kept for file in self.files)

    def knows(self, split: str) -> bool:
        """Whether the pass could tell which rows are in the split."""
        return all(split in file.shares for file in self.files)

    def share(self, split: str) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Number of rows in a split, of positives of each label, and of rows without each label."""
        shares = (file.shares[split] for file in self.files)
        rows, *counts = map(sum, zip(*shares, strict=True))
        tasks = len(counts) // 2
        return rows, tuple(counts[:tasks]), tuple(counts[tasks:])

    def report_rejected(self, report: RowReport) -> None:
        """Adds the bad rows to a report."""
        for job in self.jobs:
            for row in self.findings.rejected(job):
                report.rejected += 1
                if len(report.first_errors) < KEPT_MESSAGES:
                    report.first_errors.append(row.message)
                if report.on_rejected is not None:
                    report.on_rejected(row)


class BeamPasses(Passes):
    """Passes that run as pipelines of an engine, each finished when its method returns."""

    def __init__(self, engine: BeamEngine, name: str, folder: pathlib.Path):
        """Passes for the data set ``name``, whose workers write their findings to ``folder``."""
        self._engine = engine
        self._name = name
        self._folder = folder
        self._done = 0

    def survey(
        self,
        sources: Sequence[Source],
        *,
        counted: tuple[str, Mapping[str, Sequence[Column]]] | None = None,
        fields: Sequence[Field | None] = (),
        before: Sequence[SourceFinding | None] = (),
    ) -> tuple[list[SourceFinding], dict[str, pa.Table]]:
        """Reads all files of the sources once.

        Args:
          sources: What to read. Bad rows raise nothing here; see ``SourceFinding.check``.
          counted: A split, and what to count in its rows; see ``ValueCounter``.
          fields: For each of these counts, the field that is fitted on it, if any; values that
            cannot get an id may be left out.
          before: For each source, what an earlier pass found, which gives the positions of rows.

        Returns:
          What was found in each source, and the counts by name.

        Raises:
          UserError: files are missing or conflict.
        """
        jobs = [
            _jobs(number, source.read, before[number] if before else None)
            for number, source in enumerate(sources)
        ]
        self._done += 1
        findings = Findings(self._folder / f"pass-{self._done}")
        findings.folder.mkdir(parents=True)
        size = sum(stored_bytes(source_path(job.path)) for files in jobs for job in files)
        names = tuple(counted[1]) if counted else ()
        survey = Survey(
            [(source.read, source.chosen) for source in sources],
            findings,
            counted,
            parts=min(1 + size // _BYTES_OF_PART, 256),
        )
        with self._engine.pipeline() as pipeline:
            counts = (
                pipeline
                | "Files" >> beam.Create([job for files in jobs for job in files])
                | "Spread" >> beam.Reshuffle()
                | "Survey" >> beam.ParDo(survey)
                | "Merge" >> beam.CombinePerKey(MergeCounts())
            )
            fitted = list(fields) or [None] * len(names)
            _ = counts | "WriteCounts" >> beam.Map(write_counts, findings, fitted)
        found = [
            SourceFinding(files, tuple(findings.finding(job) for job in files), findings)
            for files in map(tuple, jobs)
        ]
        merged = {}
        for column, name in enumerate(names):
            tables = findings.counts(column)
            if tables:
                # Each value is in exactly one of them.
                merged[name] = pa.concat_tables(tables)
        return found, merged

    def count_values(self, read: ReadSplit, column: Column) -> pa.Table:
        read = self.files_of(read)
        counted = {column.name: (column,)}
        (found,), counts = self.survey([Source(read, {"": None})], counted=("", counted))
        found.check(read)
        check_seen(found.kept > 0)
        return merge_counts([counts[column.name]])

    def count_rows(self, read: ReadSplit) -> int:
        read = self.files_of(read)
        (found,), _ = self.survey([Source(read, {})])
        found.check(read)
        return found.kept

    def files_of(self, read: ReadSplit) -> ReadFiles:
        """The files of a source.

        Raises:
          UserError: the rows do not come from files.
        """
        if not isinstance(read, ReadFiles):
            raise UserError(
                f"data set {self._name!r} is not read from files that Beam workers could share; "
                "prepare it without --beam_runner"
            )
        return read


def _jobs(number: int, read: ReadFiles, before: SourceFinding | None) -> list[FileJob]:
    files = check_files(read.path, read.schema)
    jobs: list[FileJob] = []
    # The position of the first file is always known.
    first_row: int | None = 0
    for index, file in enumerate(files):
        jobs.append(FileJob(number, index, os.fspath(file), first_row))
        first_row = None if before is None else (first_row or 0) + before.files[index].kept
    return jobs
