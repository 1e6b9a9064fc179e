"""tf.data over blocks of rows: seeded shuffle, batches of one size, resume in O(1)."""

import collections
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import jax
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deepfm_jax.data.builders.click_log import BLOCK_ROWS
from deepfm_jax.data.encoder import Encoder
from deepfm_jax.data.prepare import dataset_folder, split_summaries
from deepfm_jax.errors import UserError

# Rows are shuffled within a window of so many blocks (a quarter of a million rows), and blocks
# over the whole epoch: memory stays bounded, and small data sets are shuffled completely.
WINDOW_BLOCKS = 64

Batch: TypeAlias = dict[str, np.ndarray]


def hide_accelerators() -> None:
    """Keeps TensorFlow off the accelerators, whose memory is JAX's."""
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)


class PreparedData:
    """A data set that ``prepare`` wrote: its encoder, its counts and its batches.

    Attributes:
      encoder: The encoder that was fitted on the training rows.
      summaries: Counts of each split.
      oracle: Best possible metrics of each split, where they are known (simulated data).
    """

    def __init__(self, name: str, folder: str | os.PathLike[str]):
        """Opens data set ``name`` under the folder that was ``prepare``'s ``--out``.

        Raises:
          UserError: there is no such prepared data set.
        """
        path = dataset_folder(name, folder)
        if not path.is_dir():
            raise UserError(
                f"{path}: data set {name!r} is not prepared; run python -m experiments.prepare "
                f"--dataset={name} --source=RAW_FILES --out={folder}"
            )
        hide_accelerators()
        self.encoder = Encoder.load(path)
        self.summaries = split_summaries(path)
        oracle = path / "oracle.json"
        self.oracle: dict[str, Any] = json.loads(oracle.read_text()) if oracle.is_file() else {}
        self._builder = tfds.builder_from_directory(path)

    @property
    def fingerprint(self) -> str:
        """Changes when any encoded row of any split changes."""
        return "-".join(summary.fingerprint for summary in self.summaries.values())

    def rows(self, split: str) -> int:
        """Rows of a split."""
        return self.summaries[split].rows

    def steps_per_epoch(self, split: str, batch_size: int) -> int:
        """Batches of a split, the padded last one included."""
        return -(-self.rows(split) // batch_size)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        epoch: int = 0,
        start_batch: int = 0,
    ) -> Iterator[Batch]:
        """Batches of one pass over a split, all of ``batch_size`` rows.

        (seed, epoch, start_batch) is the whole state of the pass: the same three give the same
        batches. Skipping to ``start_batch`` reads nothing of what it skips but its first window.

        Args:
          split: ``"train"``, ``"valid"`` or ``"test"``.
          batch_size: B.
          seed: Of the shuffle; None keeps the rows in the order of the raw file.
          epoch: Each epoch has a permutation of its own.
          start_batch: Batches to skip.

        Yields:
          ``ids`` [B, S] int32, ``labels`` [B, 1] float32, ``mask`` [B] float32 and, where the
          schema has value fields, ``values`` [B, S] float32. The last batch is padded with its
          own rows, repeated, under mask 0: batch norm then sees rows of the data, and the loss and
          the metrics do not see them at all.
        """
        source = self._builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        slots = len(self.encoder.field_dims)
        columns = {"ids": (tf.int32, slots), "labels": (tf.float32, 1)}
        if self.encoder.schema.has_values:
            columns["values"] = (tf.float32, slots)
        skip_rows = start_batch * batch_size
        windows = _Windows(source, tuple(columns), self.rows(split), seed, epoch, skip_rows)

        def load(window):
            arrays = tf.numpy_function(
                windows.load, [window], [dtype for dtype, _ in columns.values()]
            )
            return {
                name: tf.ensure_shape(array, [None, width])
                for (name, (_, width)), array in zip(columns.items(), arrays, strict=True)
            }

        def pad(rows):
            count = tf.shape(rows["ids"])[0]
            repeated = tf.range(batch_size) % count
            padded = tf.cond(
                count < batch_size,
                lambda: {key: tf.gather(value, repeated) for key, value in rows.items()},
                lambda: rows,
            )
            mask = tf.cast(tf.range(batch_size) < count, tf.float32)
            return {**padded, "mask": mask}

        dataset = (
            tf.data.Dataset.range(windows.first, windows.count)
            .map(load, num_parallel_calls=1)
            .prefetch(1)
            .rebatch(batch_size)
            .map(pad)
            .prefetch(2)
        )
        return dataset.as_numpy_iterator()  # pyright: ignore[reportReturnType]


class _Windows:
    """The windows of one pass: which blocks each reads, and how its rows are permuted."""

    def __init__(
        self,
        source,
        columns: tuple[str, ...],
        rows: int,
        seed: int | None,
        epoch: int,
        skip_rows: int,
    ):
        self._source = source
        self._columns = columns
        self._key = None if seed is None else (seed, epoch)
        blocks = np.arange(len(source))
        if self._key is not None:
            blocks = np.random.default_rng(self._key).permutation(blocks)
        sizes = np.full(len(source), BLOCK_ROWS)
        sizes[-1] = rows - BLOCK_ROWS * (len(source) - 1)
        ends = np.cumsum(sizes[blocks])
        self._blocks = np.split(blocks, np.arange(WINDOW_BLOCKS, len(blocks), WINDOW_BLOCKS))
        self.count = len(self._blocks)
        window_ends = ends[[*range(WINDOW_BLOCKS - 1, len(blocks) - 1, WINDOW_BLOCKS), -1]]
        self.first = int(np.searchsorted(window_ends, skip_rows, side="right"))
        self._skip = skip_rows - (int(window_ends[self.first - 1]) if self.first else 0)

    def load(self, window) -> list[np.ndarray]:
        """The columns of the rows of a window, in the order of the pass."""
        window = int(window)
        blocks = self._source.__getitems__([int(block) for block in self._blocks[window]])
        columns = [np.concatenate([block[name] for block in blocks]) for name in self._columns]
        if self._key is not None:
            order = np.random.default_rng((*self._key, window)).permutation(len(columns[0]))
            columns = [column[order] for column in columns]
        if window == self.first:
            columns = [column[self._skip :] for column in columns]
        return columns


def prefetch_to_device(
    batches: Iterable[Batch], sharding: jax.sharding.Sharding, depth: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Puts batches on the devices ``depth`` ahead, so that transfers overlap with compute.

    Args:
      batches: Batches whose leading axis is B.
      sharding: How B is split over devices.
      depth: Batches in flight.
    """
    queue: collections.deque = collections.deque()
    for batch in batches:
        queue.append(jax.device_put(batch, sharding))
        if len(queue) >= depth:
            yield queue.popleft()
    while queue:
        yield queue.popleft()
