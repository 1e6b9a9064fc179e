"""tf.data over blocks of rows: batches of one size, in a seeded order, resumed in O(1)."""

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
from deepfm_jax.data.order import Stream
from deepfm_jax.data.prepare import dataset_folder, split_summaries
from deepfm_jax.errors import UserError

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
        streams: int = 1,
        part: tuple[int, int] | None = None,
    ) -> Iterator[Batch]:
        """Batches of one pass over a split, all of ``batch_size`` rows, or a part of each.

        (seed, epoch, streams, start_batch) is the whole state of the pass: the same four give the
        same batches. Skipping to ``start_batch`` reads nothing of what it skips but a window.

        Args:
          split: ``"train"``, ``"valid"`` or ``"test"``.
          batch_size: B.
          seed: Of the shuffle; None keeps the rows in the order of the raw file.
          epoch: Each epoch has a permutation of its own.
          start_batch: Batches to skip.
          streams: Parts of the pass that each batch takes equally many rows of (see ``order``).
          part: Rows of each batch to yield, from start to stop; None for all. Only the streams that
            these come from are read.

        Yields:
          ``ids`` [B, S] int32, ``labels`` [B, 1] float32, ``mask`` [B] float32 and, where the
          schema has fields with values, ``values`` [B, S] float32, and where it has vectors,
          ``vectors`` [B, numbers] float32. The last batch is padded with its own rows, repeated,
          under mask 0: batch norm then sees rows of the data, and the loss and the metrics do not
          see them at all.

        Raises:
          UserError: the streams do not split the batch evenly.
        """
        if streams < 1 or batch_size % streams:
            raise UserError(
                f"a batch of {batch_size} rows does not split evenly into {streams} streams"
            )
        start, stop = (0, batch_size) if part is None else part
        share = batch_size // streams
        first = start // share
        source = self._builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        read = [
            self._share(
                Stream(
                    source,
                    BLOCK_ROWS,
                    self.rows(split),
                    seed=seed,
                    epoch=epoch,
                    index=index,
                    streams=streams,
                    skip_rows=start_batch * share,
                ),
                share,
            )
            for index in range(first, -(-stop // share))
        ]
        dataset = read[0]
        if len(read) > 1 or (stop - start) % share:
            dataset = tf.data.Dataset.zip(tuple(read)).map(
                lambda *shares: {
                    name: tf.concat([share_[name] for share_ in shares], axis=0)[
                        start - first * share : stop - first * share
                    ]
                    for name in shares[0]
                }
            )
        return dataset.prefetch(2).as_numpy_iterator()  # pyright: ignore[reportReturnType]

    def _share(self, stream: Stream, rows: int) -> tf.data.Dataset:
        """What a stream gives to each batch: ``rows`` rows, the last filled up."""
        slots = len(self.encoder.schema.slot_names)
        columns: dict[str, tuple[tf.DType, tuple[int, ...]]] = {
            "ids": (tf.int32, (slots,)),
            "labels": (tf.float32, (1,)),
        }
        if self.encoder.schema.has_values:
            columns["values"] = (tf.float32, (slots,))
        if self.encoder.schema.vectors:
            columns["vectors"] = (tf.float32, (self.encoder.schema.vector_size,))
        names = tuple(columns)
        columns["mask"] = (tf.float32, ())

        def load(window):
            arrays = tf.numpy_function(
                lambda number: stream.load(int(number), names),
                [window],
                [dtype for dtype, _ in columns.values()],
            )
            return {
                name: tf.ensure_shape(array, [None, *shape])
                for (name, (_, shape)), array in zip(columns.items(), arrays, strict=True)
            }

        def pad(batch):
            count = tf.shape(batch["ids"])[0]
            repeated = tf.range(rows) % count
            padded = tf.cond(
                count < rows,
                lambda: {key: tf.gather(value, repeated) for key, value in batch.items()},
                lambda: batch,
            )
            return {**padded, "mask": tf.where(tf.range(rows) < count, padded["mask"], 0.0)}

        return (
            tf.data.Dataset.range(stream.first, stream.count)
            .map(load, num_parallel_calls=1)
            .prefetch(1)
            .rebatch(rows)
            .map(pad)
        )


def prefetch_to_device(
    batches: Iterable[Batch], sharding: jax.sharding.Sharding, depth: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Puts batches on the devices ``depth`` ahead, so that transfers overlap with compute.

    Args:
      batches: Batches whose leading axis is B, or this process's part of them (see
        ``partitioning.process_rows``).
      sharding: How B is split over devices.
      depth: Batches in flight.
    """
    queue: collections.deque = collections.deque()
    for batch in batches:
        queue.append(_on_devices(batch, sharding))
        if len(queue) >= depth:
            yield queue.popleft()
    while queue:
        yield queue.popleft()


def _on_devices(batch: Batch, sharding: jax.sharding.Sharding) -> dict[str, jax.Array]:
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
