"""The rows of a split encoded by Beam workers, file by file, and put together as blocks.

Each file knows how many rows of its split come before it, so its rows are cut where the blocks of
the split begin. What lies inside a file is whole at once; pieces at the borders of files meet by
the number of their block.
"""

# pyright: reportMissingImports=false

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core.utils import shard_utils

from deepfm_jax.data.beam_survey import shares_of
from deepfm_jax.data.builders.click_log import (
    BLOCK_ROWS,
    Block,
    BlockTally,
    arrays_of,
    cut_blocks,
    join_rows,
)
from deepfm_jax.data.builders.splitting import Choose, ReadFiles
from deepfm_jax.data.encoder import Encoder
from deepfm_jax.data.row_checker import RowReport
from deepfm_jax.data.sources import read_file
from deepfm_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class EncodeJob:
    """One file of a split.

    Attributes:
      path: The file.
      first_row: Good rows of the source before it.
      first_of_split: Those of them that are in the split.
    """

    path: str
    first_row: int
    first_of_split: int


class EncodeBlocks(beam.PTransform):
    """The blocks of a split as ``(key, block)`` for the writer of TFDS.

    Beside them it writes the tallies of all blocks, for ``read_tallies``.
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
        """Of the files of ``jobs``.

        Args:
          read: How they are read.
          choose: Which of their rows are in the split; None for all.
          jobs: The files.
          encoder: Folder of the encoder.
          tallies: File to write.
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
            | "Encode" >> beam.ParDo(encode).with_outputs("pieces", main="blocks")
        )
        joined = pieces.pieces | "Meet" >> beam.GroupByKey() | "Join" >> beam.Map(_join_pieces)
        blocks = (pieces.blocks, joined) | "AllBlocks" >> beam.Flatten()
        _ = (
            blocks
            | "Tally" >> beam.Map(_tally)
            | "AllTallies" >> beam.combiners.ToList()
            | "WriteTallies" >> beam.Map(_write_tallies, self._tallies)
        )
        return blocks | "Key" >> beam.Map(self._keys)


class _EncodeFile(beam.DoFn):
    """Whole blocks as ``(number, block)``; on ``pieces`` ``(number, (first row, piece))``."""

    def __init__(self, read: ReadFiles, choose: Choose | None, encoder: pathlib.Path):
        self._read = read
        self._choose = choose
        self._encoder = encoder

    def process(self, job: EncodeJob) -> Iterator[Any]:
        encoder = _encoder(self._encoder)
        row = job.first_of_split
        for number, block in cut_blocks(self._chunks(job, encoder), row):
            rows = len(block["ids"])
            if rows == BLOCK_ROWS:
                yield number, block
            else:
                yield beam.pvalue.TaggedOutput("pieces", (number, (row, block)))
            row += rows

    def _chunks(self, job: EncodeJob, encoder: Encoder) -> Iterator[Block]:
        read, row = self._read, job.first_row
        for table in read_file(
            pathlib.Path(job.path),
            read.schema,
            max_bad_rows=read.max_bad_rows,
            report=RowReport(),
        ):
            for _, share in shares_of(table, {"": self._choose}, row):
                yield arrays_of(encoder.encode(share))
            row += table.num_rows


@functools.lru_cache(maxsize=1)
def _encoder(folder: pathlib.Path) -> Encoder:
    # Once for a process, and not with the pipeline: a large one would not go through with it.
    return Encoder.load(folder)


def _join_pieces(element: tuple[int, Iterable[tuple[int, Block]]]) -> tuple[int, Block]:
    number, pieces = element
    return number, join_rows([piece for _, piece in sorted(pieces, key=lambda each: each[0])])


def _tally(element: tuple[int, Block]) -> tuple[int, int, int, str]:
    number, block = element
    tally = BlockTally.of(block)
    return number, tally.rows, tally.positives, tally.digest.hex()


def _write_tallies(tallies: Iterable[tuple[int, int, int, str]], path: pathlib.Path) -> None:
    write_atomically(path, json.dumps(sorted(tallies)).encode())


def read_tallies(path: pathlib.Path) -> list[BlockTally]:
    """The tallies of all blocks of a split in their order."""
    return [
        BlockTally(rows, positives, bytes.fromhex(digest))
        for _, rows, positives, digest in json.loads(path.read_text())
    ]


@dataclasses.dataclass(frozen=True)
class ShardKeys:
    """Keys of blocks by which TFDS's Beam writer fills the same files as its local writer.

    The Beam writer puts key k into the file floor(k files / K), where K is the largest key; the
    local one gives each file as many blocks as the next, give or take one. So the b-th block of
    file f has key f blocks + b, and the last of all has key files x blocks = K.

    Attributes:
      blocks: Number of blocks.
      ends: Of each file, one more than its last block.
    """

    blocks: int
    ends: tuple[int, ...]

    @classmethod
    def of(cls, rows: int, features: tfds.features.FeaturesDict) -> "ShardKeys":
        """For the blocks of ``rows`` rows of these features."""
        blocks = -(-rows // BLOCK_ROWS)
        last = rows - (blocks - 1) * BLOCK_ROWS
        size = (blocks - 1) * _record_bytes(BLOCK_ROWS, features) + _record_bytes(last, features)
        shards = SameShards().get_number_shards(size, blocks)
        return cls(blocks, tuple(shard_utils.get_shard_boundaries(blocks, shards)))

    def __call__(self, element: tuple[int, Block]) -> tuple[int, Block]:
        number, block = element
        return self.key(number), block

    def key(self, number: int) -> int:
        """The key of a block."""
        if number == self.blocks - 1:
            return len(self.ends) * self.blocks
        shard = int(np.searchsorted(self.ends, number, side="right"))
        return shard * self.blocks + number - (self.ends[shard - 1] if shard else 0)


def _record_bytes(rows: int, features: tfds.features.FeaturesDict) -> int:
    """Bytes of a block on disk, which do not depend on what is in it."""
    untyped: Any = features  # What TFDS says of the types of its features is too wide.
    block = {
        name: np.zeros((rows, feature.shape[1]), feature.np_dtype)
        for name, feature in untyped.items()
    }
    serializer = example_serializer.ExampleSerializer(untyped.get_serialized_info())
    return len(serializer.serialize_example(untyped.encode_example(block)))


class SameShards(shard_utils.ShardConfig):
    """As many files as the local writer has; by default the Beam writer plans a few more."""

    def get_number_shards(
        self, total_size: int, num_examples: int, uses_precise_sharding: bool = True
    ) -> int:
        del uses_precise_sharding  # They are: see ShardKeys.
        return super().get_number_shards(total_size, num_examples)


@dataclasses.dataclass
class SameShardsConfig(tfds.download.DownloadConfig):
    """Settings of TFDS under which its Beam writer makes as many files as the local one."""

    def get_shard_config(self) -> shard_utils.ShardConfig:
        return SameShards()
