"""Blocks of encoded examples: cut from chunks of any size, counted and hashed."""

import dataclasses
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from deepfm_jax.encoding.encoder import Encoded, Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.readers.row_checker import RowReport

# Thousands of examples per record, so that reading copies bytes instead of parsing each example.
BLOCK_ROWS = 4096

# Arrays of one length: ids and labels, and values, dense numbers, weights and groups if the schema
# has them.
Block: TypeAlias = dict[str, np.ndarray]


@dataclasses.dataclass
class SplitSummary:
    """Counts of one encoded split, and a hash of its content.

    Attributes:
      read: Number of rows read.
      rows: Number of rows kept.
      rejected: Number of bad rows.
      positives: Number of examples whose (first) label is 1.
      fingerprint: Changes with any encoded example.
      first_errors: Messages about the first bad rows.
      positives_of: Number of positives of each label, by name.
      longer: For each column of several values, the number of rows with more values than are kept.
      missing_of: Number of examples without a label, by name, for labels that any example lacks.
    """

    read: int
    rows: int
    rejected: int
    positives: int
    fingerprint: str
    first_errors: list[str] = dataclasses.field(default_factory=list)
    longer: dict[str, int] = dataclasses.field(default_factory=dict)
    positives_of: dict[str, int] = dataclasses.field(default_factory=dict)
    missing_of: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def positive_rates(self) -> dict[str, float]:
        """Positives of each label as a share of the examples that have it."""
        return {
            label: positives / (self.rows - self.missing_of.get(label, 0))
            for label, positives in self.positives_of.items()
        }


@dataclasses.dataclass(frozen=True)
class BlockTally:
    """Counts and hash of one block; blocks can be tallied in parallel.

    Attributes:
      rows: Number of examples.
      positives: Number of positives of each label.
      missing: Number of examples without each label.
      digest: Hash of the arrays.
    """

    rows: int
    positives: tuple[int, ...]
    missing: tuple[int, ...]
    digest: bytes

    @classmethod
    def of(cls, block: Block) -> "BlockTally":
        """Tallies the arrays of a block, in order."""
        digest = hashlib.sha256()
        for array in block.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        counts = (block["labels"] > 0).sum(axis=0), np.isnan(block["labels"]).sum(axis=0)
        positives, missing = (tuple(of_labels.tolist()) for of_labels in counts)
        return cls(len(block["ids"]), positives, missing, digest.digest())


class SplitTally:
    """Counts the examples of a split and hashes their content, block by block."""

    def __init__(self, split: str, encoder: Encoder):
        """Starts the tally of a split that ``encoder`` encodes."""
        self._split = split
        self._labels = tuple(label.name for label in encoder.schema.labels)
        self._digest = hashlib.sha256(encoder.fingerprint().encode())
        self._positives: list[tuple[int, ...]] = []
        self._missing: list[tuple[int, ...]] = []
        self._longer: Counter[str] = Counter()
        self.rows = 0

    def add(self, block: BlockTally) -> None:
        """Adds the next block."""
        self._digest.update(block.digest)
        self._positives.append(block.positives)
        self._missing.append(block.missing)
        self.rows += block.rows

    def add_longer(self, longer: Mapping[str, int]) -> None:
        """Adds ``Encoded.longer`` of some rows."""
        self._longer.update(longer)

    @property
    def block_positives(self) -> np.ndarray:
        """Number of positives in each block for each label, [blocks, tasks]."""
        return np.array(self._positives, np.int64).reshape(-1, len(self._labels))

    @property
    def block_missing(self) -> np.ndarray:
        """Number of examples without a label in each block, [blocks, tasks]."""
        return np.array(self._missing, np.int64).reshape(-1, len(self._labels))

    @property
    def positives(self) -> tuple[int, ...]:
        """Number of positives of each label."""
        return tuple(self.block_positives.sum(axis=0).tolist())

    @property
    def missing(self) -> tuple[int, ...]:
        """Number of examples without each label."""
        return tuple(self.block_missing.sum(axis=0).tolist())

    def write(self, folder: pathlib.Path, report: RowReport) -> None:
        """Writes the counts beside the blocks: a ``SplitSummary`` and ``positives_file``.

        If any example lacks a label, it writes ``missing_file`` too.

        Raises:
          UserError: the split has no rows, or a label is the same in all that have it.
        """
        check_classes(self._split, self._labels, self.rows, self.positives, self.missing)
        positives_of = dict(zip(self._labels, self.positives, strict=True))
        missing_of = {
            label: rows for label, rows in zip(self._labels, self.missing, strict=True) if rows
        }
        np.save(folder / positives_file(self._split), self.block_positives)
        if missing_of:
            np.save(folder / missing_file(self._split), self.block_missing)
        summary = SplitSummary(
            read=report.read or self.rows,
            rows=self.rows,
            rejected=report.rejected,
            positives=self.positives[0],
            fingerprint=self._digest.hexdigest()[:16],
            first_errors=report.first_errors,
            longer=dict(self._longer),
            positives_of=positives_of,
            missing_of=missing_of,
        )
        path = folder / f"rows_{self._split}.json"
        path.write_text(json.dumps(dataclasses.asdict(summary), indent=2))


def positives_file(split: str) -> str:
    """Name of the file with the number of positives per block and label, [blocks, tasks]."""
    return f"positives_{split}.npy"


def missing_file(split: str) -> str:
    """Name of the file with the number of examples without a label, [blocks, tasks]."""
    return f"missing_{split}.npy"


def check_classes(
    split: str,
    labels: Sequence[str],
    rows: int,
    positives: Sequence[int],
    missing: Sequence[int],
) -> None:
    """Checks that a split has rows, and both classes of each of its labels.

    Args:
      split: Name of the split.
      labels: Names of its labels.
      rows: Number of its rows.
      positives: Number of positives of each label.
      missing: Number of rows without each label.

    Raises:
      UserError: the split has no rows, or a label is the same in all rows that have it.
    """
    if rows == 0:
        raise UserError(f"split {split!r} has no rows; check the files of --source")
    for label, positive, absent in zip(labels, positives, missing, strict=True):
        known = rows - absent
        if known == 0:
            raise UserError(f"split {split!r}: no row has the label {label!r}; check its column")
        if positive in (0, known):
            raise UserError(
                f"split {split!r}: all {known} labels are {int(positive > 0)}; a model can neither "
                f"learn from nor be measured on one class, so check the label column {label!r}"
            )


def arrays_of(encoded: Encoded) -> Block:
    """The arrays of encoded examples with labels."""
    assert encoded.labels is not None  # The sources of a builder read only labelled rows.
    block = {
        "ids": encoded.ids,
        "labels": encoded.labels,
        "values": encoded.values,
        "dense": encoded.dense,
        "weights": encoded.weights,
        "groups": encoded.groups,
    }
    return {name: array for name, array in block.items() if array is not None}


def cut_blocks(chunks: Iterable[Block], first_row: int = 0) -> Iterator[tuple[int, Block]]:
    """Cuts chunks of any size into numbered blocks of BLOCK_ROWS examples.

    Only the last block may be smaller, and the first one if ``first_row``, the position of the
    first example in the split, is inside a block.
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
    """Concatenates the examples of all chunks."""
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _sliced(chunk: Block, start: int, stop: int) -> Block:
    return {key: array[start:stop] for key, array in chunk.items()}
