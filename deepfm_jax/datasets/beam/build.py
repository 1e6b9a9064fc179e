"""Prepares a data set with Beam, which writes the same files as ``prepare`` without it.

Rows are read at most three times: to count and check them, to count the values that the encoder is
fitted on, and to encode them. If the splits are separate files, the first two are one pass.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import pyarrow as pa

from deepfm_jax.datasets.beam.blocks import EncodeBlocks, EncodeJob, ShardKeys, add_tallies
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.beam.passes import BeamPasses, Source, SourceFinding
from deepfm_jax.datasets.blocks import SplitTally, check_classes
from deepfm_jax.datasets.splitting import Choose, ReadFiles, ReadShare, ReadSplit
from deepfm_jax.encoding.counting import check_seen, counted_columns
from deepfm_jax.encoding.encoder import Encoder, fit_counts
from deepfm_jax.encoding.extension import check_same_schema, grow
from deepfm_jax.errors import UserError
from deepfm_jax.readers.rejects import rejects_file
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.schema import Schema


class BeamBuild:
    """The steps of a preparation with Beam, in order: ``fit``, ``blocks``, ``finish``.

    Attributes:
      passes: Passes for splits that depend on all rows.
    """

    def __init__(
        self,
        engine: BeamEngine,
        name: str,
        schema: Schema,
        folder: str | os.PathLike[str],
        *,
        extended: Encoder | None = None,
    ):
        """Prepares the data set ``name`` in ``folder``.

        With ``extended``, the ids of that encoder are kept (see ``extension.extend``).

        Raises:
          UserError: ``extended`` has another schema.
        """
        if extended is not None:
            check_same_schema(extended, schema)
        self._extended = extended
        self._schema = schema
        self._folder = pathlib.Path(folder).absolute()
        # Removed when the data set is complete; no file of a data set has this name.
        self._scratch = self._folder / "beam"
        self.passes = BeamPasses(engine, name, self._scratch)
        self._splits: Mapping[str, ReadSplit] = {}
        self._found: dict[str, SourceFinding] = {}
        self._encoder: Encoder | None = None

    def fit(self, splits: Mapping[str, ReadSplit]) -> Encoder:
        """Checks all rows and fits the encoder on those of ``train``.

        Raises:
          UserError: a preparation of these files without Beam would raise it.
        """
        self._splits = splits
        sources = _sources(splits, self.passes)
        counts = self._survey(sources, {})
        unplaced = [
            dataclasses.replace(source, chosen=unknown)
            for source in sources
            if (unknown := {s: c for s, c in source.chosen.items() if not self._found[s].knows(s)})
        ]
        if unplaced:
            # These splits depend on the positions of rows, which are known only now.
            counts = self._survey(unplaced, dict(self._found)) or counts
        fresh = fit_counts(counts, self._schema)
        self._encoder = fresh if self._extended is None else grow(self._extended, fresh)
        return self._encoder

    def _survey(
        self, sources: Sequence[Source], before: Mapping[str, SourceFinding]
    ) -> dict[str, pa.Table]:
        """Reads the sources, and counts the values of ``train`` if it is one of their splits."""
        counted = counted_columns(self._schema)
        fields = {field.name: field for field in self._schema.fields}
        labels = [label.name for label in self._schema.labels]
        has_train = any("train" in source.chosen for source in sources)
        found, counts = self.passes.survey(
            sources,
            counted=("train", counted) if has_train else None,
            fields=[fields[name] for name in counted] if has_train else (),
            before=[before.get(next(iter(source.chosen))) for source in sources],
        )
        for source, finding in zip(sources, found, strict=True):
            self._found |= dict.fromkeys(source.chosen, finding)
        read_of = {split: source.read for source in sources for split in source.chosen}
        # Raises what a preparation without Beam, split by split, would raise first.
        for split in self._splits:
            if split not in read_of:
                continue
            finding = self._found[split]
            finding.check(read_of[split])
            if split == "train":
                check_seen(finding.kept > 0)
            if finding.knows(split):
                check_classes(split, labels, *finding.share(split))
        return counts

    def blocks(self) -> dict[str, EncodeBlocks]:
        """The transforms that produce the blocks of each split for the writer of TFDS."""
        for split in self._splits:
            self._tallies(split).mkdir()
        return {
            split: EncodeBlocks(
                *_read_and_choose(read, self.passes),
                _encode_jobs(self._found[split], split),
                encoder=self._folder,
                tallies=self._tallies(split),
                keys=ShardKeys.of(self._found[split].share(split)[0]),
            )
            for split, read in self._splits.items()
        }

    def finish(self) -> None:
        """Writes the counts and the rejected rows of each split beside its blocks.

        Raises:
          UserError: the files changed between the passes.
        """
        assert self._encoder is not None  # It was fitted before anything was encoded.
        for split, read in self._splits.items():
            found = self._found[split]
            tally = SplitTally(split, self._encoder)
            add_tallies(self._tallies(split), tally)
            rows, *_ = share = found.share(split)
            if (tally.rows, tally.positives, tally.missing) != share:
                raise UserError(
                    f"split {split!r}: {rows} rows were counted but {tally.rows} encoded; the "
                    "files changed in between, so start again"
                )
            report = RowReport(read=rows, kept=rows)
            if not isinstance(read, ReadShare) or read.reports_rejected:
                with rejects_file(self._folder, split) as add_rejected:
                    report.on_rejected = add_rejected
                    found.report_rejected(report)
                report.read += report.rejected
            tally.write(self._folder, report)
        shutil.rmtree(self._scratch)

    def _tallies(self, split: str) -> pathlib.Path:
        return self._scratch / f"tallies-{split}"


def _read_and_choose(read: ReadSplit, passes: BeamPasses) -> tuple[ReadFiles, Choose | None]:
    if isinstance(read, ReadShare):
        return passes.files_of(read.read), read.choose
    return passes.files_of(read), None


def _sources(splits: Mapping[str, ReadSplit], passes: BeamPasses) -> list[Source]:
    """The sources of the splits, without duplicates."""
    chosen: dict[ReadFiles, dict[str, Choose | None]] = {}
    for split, read in splits.items():
        files, choose = _read_and_choose(read, passes)
        chosen.setdefault(files, {})[split] = choose
    return [Source(files, choices) for files, choices in chosen.items()]


def _encode_jobs(found: SourceFinding, split: str) -> list[EncodeJob]:
    jobs, row, row_of_split = [], 0, 0
    for job, file in zip(found.jobs, found.files, strict=True):
        jobs.append(EncodeJob(job.path, row, row_of_split))
        row += file.kept
        row_of_split += file.shares[split][0]
    return jobs
