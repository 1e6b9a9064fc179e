"""What all TFDS builders of click logs share: fit on train, encode, write blocks of rows."""

import abc
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds
from tqdm import tqdm

from deepfm_jax.data.beam_engine import BeamEngine
from deepfm_jax.data.builders.files import find_split, has_split
from deepfm_jax.data.builders.splitting import (
    SHARES,
    Passes,
    ReadFiles,
    ReadSplit,
    split_by_draw,
    split_by_time,
)
from deepfm_jax.data.encoder import Encoded, Encoder, fit
from deepfm_jax.data.rejects import rejects_file
from deepfm_jax.data.row_checker import RowReport
from deepfm_jax.data.sources import Files
from deepfm_jax.errors import UserError
from deepfm_jax.schema import (
    Categorical,
    Column,
    Cross,
    Numeric,
    NumericTransform,
    Schema,
    Timestamp,
)

# Thousands of rows a record, so that reading is a copy of bytes and not a parse per row.
BLOCK_ROWS = 4096
OPTIONS_FILE, SOURCE_FILE = "options.json", "source.json"

# Arrays of one length: ids, labels and, where the schema has value fields, values.
Block: TypeAlias = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What a user may change about the encoding; None keeps the builder's own choice.

    Attributes:
      min_count: Of every vocabulary: of categorical columns and of ``log2_floor`` buckets.
      max_size: Of every categorical column that has a vocabulary.
      hash_buckets: Of every categorical column, in place of its vocabulary; columns of ids as they
        are stay so.
      numeric: Transform of every numeric column.
      buckets: Number of quantile buckets.
      separate_missing: Whether missing values have an id of their own.
      max_bad_rows: Bad rows tolerated (and counted) in each split.
      rows: Training rows to simulate; the ``synthetic`` data set only.
      crosses: Columns of each cross-product feature, added to those of the builder.
      cross_buckets: Buckets of each of them.
      time_column: Split the rows of one file by the times of this column (see ``splitting``), and
        not by a draw.
      schema: Data of a ``Schema``, as its ``to_dict`` gives; the ``tabular`` data set only.

    Raises:
      UserError: ``crosses`` is not a list of lists of column names, or ``schema`` no schema.
    """

    min_count: int | None = None
    max_size: int | None = None
    hash_buckets: int | None = None
    numeric: NumericTransform | None = None
    buckets: int | None = None
    separate_missing: bool | None = None
    max_bad_rows: int = 0
    rows: int | None = None
    crosses: Sequence[Sequence[str]] = ()
    cross_buckets: int = 100_000
    time_column: str | None = None
    schema: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.schema is not None:
            # Equal schemas must be equal whatever they leave out.
            object.__setattr__(self, "schema", Schema.from_dict(self.schema).to_dict())
        # A string is a sequence of strings too: each letter of "C1,C2" would pass for a column.
        if not (_is_list(self.crosses) and all(_is_list_of_names(part) for part in self.crosses)):
            raise UserError(
                f"crosses={self.crosses!r} must be a list of lists of columns, as [['C1', 'C2']]"
            )
        # JSON and configs have lists, and equal options must be equal.
        object.__setattr__(self, "crosses", tuple(tuple(columns) for columns in self.crosses))

    def apply(self, schema: Schema) -> Schema:
        """The schema with these choices in place of the builder's.

        Raises:
          UserError: a cross that the schema cannot have (see ``Schema``).
        """
        numeric = {
            "transform": self.numeric,
            "buckets": self.buckets,
            "min_count": self.min_count,
            "separate_missing": self.separate_missing,
        }

        def changed(column: Column) -> Column:
            options: dict[str, Any] = {"separate_missing": self.separate_missing}
            if isinstance(column, Numeric):
                options = numeric
            elif isinstance(column, Categorical):
                if self.hash_buckets is not None and column.dtype != "id":
                    options |= {"hash_buckets": self.hash_buckets, "min_count": 1}
                    column = dataclasses.replace(column, max_size=None)
                elif column.has_vocabulary:
                    options |= {"min_count": self.min_count, "max_size": self.max_size}
            elif not isinstance(column, Timestamp):
                return column
            set_options = {key: value for key, value in options.items() if value is not None}
            return dataclasses.replace(column, **set_options)

        crosses = (Cross(tuple(columns), self.cross_buckets) for columns in self.crosses)
        return dataclasses.replace(
            schema,
            columns=tuple(map(changed, schema.columns)),
            crosses=(*schema.crosses, *crosses),
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_list_of_names(value: Any) -> bool:
    return _is_list(value) and all(isinstance(name, str) for name in value)


@dataclasses.dataclass
class SplitSummary:
    """Counts of one encoded split, and a hash of its content."""

    read: int
    rows: int
    rejected: int
    positives: int
    fingerprint: str
    first_errors: list[str] = dataclasses.field(default_factory=list)


class SplitTally:
    """Counts the rows of a split and hashes their content, block after block."""

    def __init__(self, split: str, encoder_fingerprint: str):
        self._split = split
        self._digest = hashlib.sha256(encoder_fingerprint.encode())
        self.rows = 0
        self.positives = 0

    def add(self, block: "BlockTally") -> None:
        """Takes in the next block."""
        self._digest.update(block.digest)
        self.rows += block.rows
        self.positives += block.positives

    def summary(self, report: RowReport) -> SplitSummary:
        """The counts of all blocks.

        Raises:
          UserError: there are no rows, or all have one label.
        """
        check_classes(self._split, self.rows, self.positives)
        return SplitSummary(
            read=report.read or self.rows,
            rows=self.rows,
            rejected=report.rejected,
            positives=self.positives,
            fingerprint=self._digest.hexdigest()[:16],
            first_errors=report.first_errors,
        )


@dataclasses.dataclass(frozen=True)
class BlockTally:
    """What a block adds to the tally of its split; blocks can be tallied side by side."""

    rows: int
    positives: int
    digest: bytes

    @classmethod
    def of(cls, block: Block) -> "BlockTally":
        """Of the arrays of a block, in their order."""
        digest = hashlib.sha256()
        for array in block.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return cls(len(block["ids"]), int(block["labels"].sum()), digest.digest())


class ClickLogBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Encodes a click log into blocks of rows, with its encoder beside them.

    A subclass names its ``SCHEMA`` and how to read its splits. Vocabularies are fitted on the rows
    of ``train`` alone. Builders are not registered with TFDS, whose own ``criteo`` is another data
    set; ``BUILDERS`` finds them.
    """

    VERSION = tfds.core.Version("1.0.0")
    SCHEMA: ClassVar[Schema]
    NEEDS_SOURCE: ClassVar[bool] = True
    SOURCE_MAY_BE_FILES: ClassVar[bool] = False

    def __init__(
        self,
        *,
        options: BuildOptions | None = None,
        source: str | os.PathLike[str] | None = None,
        beam: BeamEngine | None = None,
        **kwargs,
    ):
        """A builder of the raw files in the folder ``source`` (or of a file or pattern of files).

        With ``beam`` the rows are read and encoded by its workers, and not in this process.

        Raises:
          UserError: see ``encoded_schema``.
        """
        self.options = options or BuildOptions()
        self.source = pathlib.Path(source) if source is not None else None
        self.schema = self.encoded_schema(self.options)
        self._passes = Passes()
        self._beam = beam
        self._beam_build = None
        super().__init__(**kwargs)

    @classmethod
    def encoded_schema(cls, options: BuildOptions) -> Schema:
        """The schema of the data set with these options.

        Raises:
          UserError: options that do not go with the data set (see ``BuildOptions.apply``).
        """
        if options.schema is not None:
            raise UserError(f"data set {cls.name!r} has a schema of its own; tabular takes one")
        return options.apply(cls.SCHEMA)

    @abc.abstractmethod
    def _read_splits(self) -> dict[str, ReadSplit]:
        """How to read each split of ``source``; ``train`` is among them.

        Raises:
          UserError: files that the data set needs are missing.
        """

    def _files(self, path: Files) -> ReadFiles:
        """How to read all rows of a file, or of several."""
        return ReadFiles(path, self.schema, self.options.max_bad_rows)

    def _given(self, extensions: Sequence[str]) -> dict[str, ReadSplit]:
        """Splits that are files: ``train``, ``valid`` and ``test``, one or several of each."""
        assert self.source is not None
        if self.options.time_column is not None:
            raise UserError(
                f"{self.source}: the rows are split already; time_column is for those that are not"
            )
        paths = {split: find_split(self.source, split, extensions) for split in SHARES}
        return {split: self._files(path) for split, path in paths.items()}

    def _given_or_drawn(self, extensions: Sequence[str]) -> dict[str, ReadSplit]:
        """The same, or, where there is no ``valid``, the rows of ``train`` split."""
        assert self.source is not None
        if has_split(self.source, "valid", extensions):
            return self._given(extensions)
        return self._drawn(find_split(self.source, "train", extensions))

    def _drawn(self, path: str | os.PathLike[str]) -> dict[str, ReadSplit]:
        """The rows of one source in three splits, by a draw or by ``options.time_column``."""
        read = self._files(path)
        if self.options.time_column is None:
            return split_by_draw(read)
        return split_by_time(read, self.schema, self.options.time_column, self._passes)

    def _extra_files(self) -> dict[str, Any]:
        """JSON files to keep beside the blocks, by name."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        slots = len(self.schema.slot_names)

        def block(width: int, dtype: Any) -> tfds.features.Tensor:
            return tfds.features.Tensor(
                shape=(None, width), dtype=dtype, encoding=tfds.features.Encoding.BYTES
            )

        features = {"ids": block(slots, np.int32), "labels": block(1, np.float32)}
        if self.schema.has_values:
            features["values"] = block(slots, np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # Nothing is downloaded.
        if self._beam is not None:
            # Here and not above, for Beam is an extra.
            from deepfm_jax.data.beam_build import BeamBuild

            self._beam_build = BeamBuild(self._beam, self.name, self.schema, self.data_dir)
            self._passes = self._beam_build.passes
            splits = self._read_splits()
            self._save_beside(self._beam_build.fit(splits))
            features = self.info.features
            assert isinstance(features, tfds.features.FeaturesDict)  # See _info.
            return self._beam_build.blocks(features)
        splits = self._read_splits()
        encoder = fit(_counted(splits["train"](None), "vocabularies"), self.schema)
        self._save_beside(encoder)
        return {
            split: self._generate_examples(split, read, encoder) for split, read in splits.items()
        }

    def _save_beside(self, encoder: Encoder) -> None:
        """Writes what stands beside the blocks, so that the folder is complete or absent."""
        folder = pathlib.Path(self.data_dir)
        (folder / OPTIONS_FILE).write_text(json.dumps(dataclasses.asdict(self.options)))
        if self.source is not None:
            (folder / SOURCE_FILE).write_text(json.dumps({"source": os.path.abspath(self.source)}))
        encoder.save(folder)
        for name, content in self._extra_files().items():
            (folder / f"{name}.json").write_text(json.dumps(content, indent=2))

    def _generate_examples(self, split: str, read: ReadSplit, encoder: Encoder):
        folder = pathlib.Path(self.data_dir)
        with rejects_file(folder, split) as add_rejected:
            report = RowReport(on_rejected=add_rejected)
            tally = SplitTally(split, encoder.fingerprint())
            tables = _counted(read(report), f"encode {split}")
            for index, block in cut_blocks(arrays_of(encoder.encode(table)) for table in tables):
                tally.add(BlockTally.of(block))
                yield index, block
            write_summary(folder, split, tally.summary(report))

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        """Called by TFDS when Beam has written the blocks."""
        del pipeline_result
        assert self._beam_build is not None  # It made the pipeline.
        self._beam_build.finish()


def write_summary(folder: pathlib.Path, split: str, summary: SplitSummary) -> None:
    """Writes the counts of a split beside its blocks."""
    (folder / f"rows_{split}.json").write_text(json.dumps(dataclasses.asdict(summary), indent=2))


def _counted(tables: Iterable[pa.Table], title: str) -> Iterator[pa.Table]:
    """The tables, with a progress bar of their rows."""
    with tqdm(desc=title, unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)


def check_classes(split: str, rows: int, positives: int) -> None:
    """Whether a split has rows, and of both labels.

    Raises:
      UserError: it is not so.
    """
    if rows == 0:
        raise UserError(f"split {split!r} has no rows; check the files of --source")
    if positives in (0, rows):
        raise UserError(
            f"split {split!r}: all {rows} labels are {int(positives > 0)}; a model can neither "
            "learn from nor be measured on one class, so check the label column"
        )


def arrays_of(encoded: Encoded) -> Block:
    """The arrays of encoded rows that have labels."""
    assert encoded.labels is not None  # The sources of a builder read labelled rows alone.
    block = {"ids": encoded.ids, "labels": encoded.labels}
    return block if encoded.values is None else {**block, "values": encoded.values}


def cut_blocks(chunks: Iterable[Block], first_row: int = 0) -> Iterator[tuple[int, Block]]:
    """Chunks of any size as blocks of BLOCK_ROWS rows, with their numbers.

    Only the last one is smaller, and the first one where ``first_row``, the place of the first row
    in the split, is inside a block.
    """
    index = first_row // BLOCK_ROWS
    room = BLOCK_ROWS - first_row % BLOCK_ROWS
    held: list[Block] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk["ids"])
        if count < room:
            continue
        joined, start = join_rows(held), 0
        while count - start >= room:
            yield index, _sliced(joined, start, start + room)
            start, index, room = start + room, index + 1, BLOCK_ROWS
        held, count = [_sliced(joined, start, count)], count - start
    if count:
        yield index, join_rows(held)


def join_rows(chunks: Sequence[Block]) -> Block:
    """The rows of all chunks, one after the other."""
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _sliced(chunk: Block, start: int, stop: int) -> Block:
    return {key: array[start:stop] for key, array in chunk.items()}
