"""Encodes the rows of a split with Beam workers, file by file, and assembles them into blocks.

For each file, the number of earlier rows of its split is known, so its rows are cut where the
blocks of the split begin. Blocks inside a file are complete immediately; pieces at the borders of
files are joined by the number of their block.
"""

# pyright: reportMissingImports=false

import dataclasses
import functools
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import tensorflow_datasets as tfds
from apache_beam import pvalue
from tensorflow_datasets.core.utils import shard_utils

from deepfm_jax.datasets.beam.survey import shares_of
from deepfm_jax.datasets.block_files import FILE_BLOCKS
from deepfm_jax.datasets.blocks import (
    BLOCK_ROWS,
    Block,
    BlockTally,
    SplitTally,
    arrays_of,
    cut_blocks,
    join_rows,
)
from deepfm_jax.datasets.splitting import Choose, ReadFiles
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.files import write_atomically
from deepfm_jax.readers.paths import source_path
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_file

_BLOCKS, _LONGER = "blocks.json", "longer.json"


@dataclasses.dataclass(frozen=True)
class EncodeJob:
    """One file of a split.

    Attributes:
      path: Path of the file.
      first_row: Number of good rows of the source before it.
      first_of_split: Number of those rows that are in the split.
    """

    path: str
    first_row: int
    first_of_split: int


class EncodeBlocks(beam.PTransform):
    """Produces the blocks of a split as ``(key, block)`` for the writer of TFDS.

    It also writes the tallies of all blocks, for ``add_tallies``.
    """

    def __init__(
        self,
        read: ReadFiles,
        choose: Choose | None,
        jobs: Sequence[EncodeJob],
        *,
        encoder: pathlib.Path,
        tallies: pathlib.Path,
        keys: "ShardKeys",
    ):
        """Encodes the files of ``jobs``.

        Args:
          read: How to read the files.
          choose: Which of their rows are in the split; None for all.
          jobs: The files to encode.
          encoder: Folder of the encoder.
          tallies: Folder for the tallies.
          keys: Gives each block the key by which the writer of TFDS sorts.
        """
        super().__init__()
        self._read = read
        self._choose = choose
        self._jobs = jobs
        self._encoder = encoder
        self._tallies = tallies
        self._keys = keys

    def expand(self, pipeline: Any) -> Any:
        encode = _EncodeFile(self._read, self._choose, self._encoder)
        pieces = (
            pipeline
            | "Files" >> beam.Create(self._jobs)
            | "Spread" >> beam.Reshuffle()
            | "Encode" >> beam.ParDo(encode).with_outputs("pieces", "longer", main="blocks")
        )
        joined = pieces.pieces | "Meet" >> beam.GroupByKey() | "Join" >> beam.Map(_join_pieces)
        blocks = (pieces.blocks, joined) | "AllBlocks" >> beam.Flatten()
        _ = (
            blocks
            | "Tally" >> beam.Map(_tally)
            | "AllTallies" >> beam.combiners.ToList()
            | "WriteTallies" >> beam.Map(_write_list, self._tallies / _BLOCKS)
        )
        _ = (
            pieces.longer
            | "AllLonger" >> beam.combiners.ToList()
            | "WriteLonger" >> beam.Map(_write_list, self._tallies / _LONGER)
        )
        return blocks | "Key" >> beam.Map(self._keys)


class _EncodeFile(beam.DoFn):
    """Outputs complete blocks as ``(number, block)``.

    The output ``pieces`` has ``(number, (first row, piece))``, and ``longer`` has
    ``Encoded.longer`` of a file.
    """

    def __init__(self, read: ReadFiles, choose: Choose | None, encoder: pathlib.Path):
        self._read = read
        self._choose = choose
        self._encoder = encoder

    def process(self, job: EncodeJob) -> Iterator[Any]:
        encoder = _encoder(self._encoder)
        row = job.first_of_split
        longer: Counter[str] = Counter()
        for number, block in cut_blocks(self._chunks(job, encoder, longer), row):
            rows = len(block["ids"])
            if rows == BLOCK_ROWS:
                yield number, block
            else:
                yield pvalue.TaggedOutput("pieces", (number, (row, block)))
            row += rows
        yield pvalue.TaggedOutput("longer", dict(longer))

    def _chunks(self, job: EncodeJob, encoder: Encoder, longer: Counter[str]) -> Iterator[Block]:
        read, row = self._read, job.first_row
        for table in read_file(
            source_path(job.path),
            read.schema,
            max_bad_rows=read.max_bad_rows,
            report=RowReport(),
        ):
            for _, share in shares_of(table, {"": self._choose}, row):
                encoded = encoder.encode(share)
                longer.update(encoded.longer)
                yield arrays_of(encoded)
            row += table.num_rows


@functools.lru_cache(maxsize=1)
def _encoder(folder: pathlib.Path) -> Encoder:
    # Loaded once per process, because a large encoder would not fit into the pipeline itself.
    return Encoder.load(folder)


def _join_pieces(element: tuple[int, Iterable[tuple[int, Block]]]) -> tuple[int, Block]:
    number, pieces = element
    return number, join_rows([piece for _, piece in sorted(pieces, key=lambda each: each[0])])


def _tally(
    element: tuple[int, Block],
) -> tuple[int, int, tuple[int, ...], tuple[int, ...], str]:
    number, block = element
    tally = BlockTally.of(block)
    return number, tally.rows, tally.positives, tally.missing, tally.digest.hex()


def _write_list(items: list[Any], path: pathlib.Path) -> None:
    write_atomically(path, json.dumps(items).encode())


def add_tallies(folder: pathlib.Path, tally: SplitTally) -> None:
    """Adds the tallies of all blocks of a split, in order."""
    for _, rows, positives, missing, digest in sorted(json.loads((folder / _BLOCKS).read_text())):
        tally.add(BlockTally(rows, tuple(positives), tuple(missing), bytes.fromhex(digest)))
    for longer in json.loads((folder / _LONGER).read_text()):
        tally.add_longer(longer)


@dataclasses.dataclass(frozen=True)
class ShardKeys:
    """Keys of blocks with which TFDS's Beam writer fills the same files as ``write_split``.

    The Beam writer puts key k into the file floor(k files / K), where K is the largest key. So the
    b-th block of file f has key f blocks + b, and the very last block has key files x blocks = K.

    Attributes:
      blocks: Number of blocks.
    """

    blocks: int

    @classmethod
    def of(cls, rows: int) -> "ShardKeys":
        """The keys for the blocks of ``rows`` rows."""
        return cls(-(-rows // BLOCK_ROWS))

    def __call__(self, element: tuple[int, Block]) -> tuple[int, Block]:
        number, block = element
        return self.key(number), block

    def key(self, number: int) -> int:
        """The key of a block."""
        if number == self.blocks - 1:
            return files_of(self.blocks) * self.blocks
        file, place = divmod(number, FILE_BLOCKS)
        return file * self.blocks + place


def files_of(blocks: int) -> int:
    """The number of files into which ``write_split`` puts this many blocks."""
    return -(-blocks // FILE_BLOCKS)


class SameShards(shard_utils.ShardConfig):
    """Writes as many files as ``write_split``; the Beam writer's default depends on their bytes."""

    def get_number_shards(
        self, total_size: int, num_examples: int, uses_precise_sharding: bool = True
    ) -> int:
        del total_size, uses_precise_sharding
        return files_of(num_examples)


@dataclasses.dataclass
class SameShardsConfig(tfds.download.DownloadConfig):
    """Settings of TFDS with which its Beam writer writes as many files as ``write_split``."""

    def get_shard_config(self) -> shard_utils.ShardConfig:
        return SameShards()
