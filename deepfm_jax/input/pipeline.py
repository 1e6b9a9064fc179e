"""tf.data over blocks of examples: batches of one size, in a seeded order, resumed in O(1)."""

import collections
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from deepfm_jax.datasets.blocks import BLOCK_ROWS, missing_file, positives_file
from deepfm_jax.datasets.prepare import dataset_folder, split_summaries
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.input.sampling import SampledBlocks, kept_negatives
from deepfm_jax.input.shuffle import Stream
from deepfm_jax.metrics.calibration import check_negative_rate

Batch: TypeAlias = dict[str, np.ndarray]


def hide_accelerators() -> None:
    """Hides accelerators from TensorFlow, so that it leaves their memory to JAX."""
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)


class PreparedData:
    """A data set that ``prepare`` wrote: its encoder, its counts and its batches.

    Attributes:
      encoder: The encoder that was fitted on the training split.
      labels: Names of the labels in batches.
      summaries: Counts of each split.
      oracle: Best possible metrics of each split, if known (simulated data).
    """

    def __init__(self, name: str, folder: str | os.PathLike[str], labels: Sequence[str] = ()):
        """Opens data set ``name`` in the folder that ``prepare`` wrote to with ``--out``.

        Args:
          name: Name of the data set.
          folder: Folder of prepared data sets.
          labels: Labels in batches; empty for the first label of the data set.

        Raises:
          UserError: the data set is not prepared, or a label does not exist.
        """
        path = dataset_folder(name, folder)
        if not path.is_dir():
            raise UserError(
                f"{path}: data set {name!r} is not prepared; run deepfm-jax prepare "
                f"--dataset={name} --source=RAW_FILES --out={folder}, or if it has moved, set "
                "--config.data.folder to its new folder"
            )
        hide_accelerators()
        self.encoder = Encoder.load(path)
        schema = self.encoder.schema
        chosen = schema.labels_named(labels)
        self.labels = tuple(label.name for label in chosen)
        self._labels = [schema.labels.index(label) for label in chosen]
        self.summaries = split_summaries(path)
        oracle = path / "oracle.json"
        self.oracle: dict[str, Any] = json.loads(oracle.read_text()) if oracle.is_file() else {}
        self._folder = path
        self._block_negatives: dict[str, np.ndarray] = {}
        self._builder = tfds.builder_from_directory(path)

    @property
    def fingerprint(self) -> str:
        """Changes when any example of any split changes."""
        return "-".join(summary.fingerprint for summary in self.summaries.values())

    def rows(self, split: str, negative_rate: float = 1.0) -> int:
        """Number of examples in a pass over a split (see ``batches``).

        Raises:
          UserError: ``negative_rate`` is out of range, or leaves no negative example.
        """
        rows = self.summaries[split].rows
        check_negative_rate(negative_rate)
        if negative_rate == 1:
            return rows
        negatives = self._negatives(split)
        kept = int(kept_negatives(negatives, negative_rate).sum())
        if not kept:
            raise UserError(
                f"negative_rate={negative_rate} keeps none of the {int(negatives.sum()):,} "
                f"negative examples of split {split!r}; raise it"
            )
        return kept + rows - int(negatives.sum())

    def steps_per_epoch(self, split: str, batch_size: int, negative_rate: float = 1.0) -> int:
        """Number of batches in a pass over a split, including the padded last one."""
        return -(-self.rows(split, negative_rate) // batch_size)

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
        negative_rate: float = 1.0,
        groups: bool = False,
    ) -> Iterator[Batch]:
        """Batches of one pass over a split, each of ``batch_size`` examples, or a part of each.

        (seed, epoch, streams, start_batch) is the whole state of the pass: the same four give the
        same batches. Skipping to ``start_batch`` reads at most one window of what it skips.

        Args:
          split: ``"train"``, ``"valid"`` or ``"test"``.
          batch_size: B.
          seed: Seed of the shuffle; None keeps the order of the raw file.
          epoch: Each epoch has its own permutation.
          start_batch: Batches to skip.
          streams: Number of streams; each batch takes equally many examples of each (see
            ``shuffle``).
          part: Examples of each batch to yield, from start to stop; None for all. Only the streams
            that contain them are read.
          negative_rate: Share of the examples with label 0 that the pass keeps, drawn anew in each
            epoch (see ``sampling``). A rate below 1 requires a seed.
          groups: Whether to yield the groups of examples, if the schema has them.

        Yields:
          ``ids`` [B, S] int32, ``labels`` [B, T] float32, NaN for a missing label, and ``mask`` [B]
          float32; ``values`` [B, S] float32 if fields have values, ``dense`` [B, N] float32 if
          there are dense fields, and with ``groups`` also ``groups`` [B, 2] int32. The mask is the
          weight of each example, 1 without a column of weights. The last batch is padded with
          repeats of its own examples under mask 0, so that batch norm sees real data while the loss
          and the metrics ignore the padding.

        Raises:
          UserError: the streams do not divide the batch evenly, or see ``rows``.
        """
        if streams < 1 or batch_size % streams:
            raise UserError(
                f"a batch of {batch_size} examples does not split evenly into {streams} streams"
            )
        start, stop = (0, batch_size) if part is None else part
        share = batch_size // streams
        first = start // share
        source, sizes = self._source(split, negative_rate, seed, epoch)
        read = [
            self._share(
                Stream(
                    source,
                    sizes,
                    seed=seed,
                    epoch=epoch,
                    index=index,
                    streams=streams,
                    skip_rows=start_batch * share,
                ),
                share,
                groups,
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
        # More than one thread per stream does not read faster and, if the step runs on the same
        # cores, would take them from it in the middle of its parallel loops.
        options = tf.data.Options()
        options.threading.private_threadpool_size = len(read)
        options.autotune.enabled = False
        return dataset.with_options(options).prefetch(2).as_numpy_iterator()  # pyright: ignore[reportReturnType]

    def _source(
        self, split: str, negative_rate: float, seed: int | None, epoch: int
    ) -> tuple[Any, np.ndarray]:
        """The blocks of a pass and the number of examples in each."""
        source = self._builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        sizes = self._sizes(split)
        self.rows(split, negative_rate)  # Raises on an impossible rate.
        if negative_rate == 1:
            return source, sizes
        if seed is None:
            raise ValueError(f"negative_rate={negative_rate} requires a seed")
        sampled = SampledBlocks(
            source, self._labels[0], self._negatives(split), sizes, negative_rate, (seed, epoch)
        )
        return sampled, sampled.sizes

    def _sizes(self, split: str) -> np.ndarray:
        """Number of examples in each block; only the last block may be smaller."""
        rows = self.summaries[split].rows
        return np.diff(np.append(np.arange(0, rows, BLOCK_ROWS), rows))

    def _negatives(self, split: str) -> np.ndarray:
        """Number of examples with label 0 in each block."""
        if split not in self._block_negatives:
            others = np.load(self._folder / positives_file(split))
            missing = self._folder / missing_file(split)
            if missing.is_file():
                others = others + np.load(missing)
            negatives = self._sizes(split) - others[:, self._labels[0]]
            self._block_negatives[split] = negatives.astype(np.int64)
        return self._block_negatives[split]

    def _share(self, stream: Stream, rows: int, groups: bool) -> tf.data.Dataset:
        """The part of a stream in each batch: ``rows`` examples, with the last batch padded."""
        schema = self.encoder.schema
        slots = len(schema.slot_names)
        columns: dict[str, tuple[tf.DType, tuple[int, ...]]] = {
            "ids": (tf.int32, (slots,)),
            "labels": (tf.float32, (len(self._labels),)),
        }
        if schema.has_values:
            columns["values"] = (tf.float32, (slots,))
        if schema.dense_size:
            columns["dense"] = (tf.float32, (schema.dense_size,))
        if groups and schema.group is not None:
            columns["groups"] = (tf.int32, (2,))
        names = (*columns, "weights") if schema.weight is not None else tuple(columns)
        columns["mask"] = (tf.float32, ())

        def read(window):
            arrays = dict(zip((*names, "mask"), stream.load(int(window), names), strict=True))
            arrays["labels"] = arrays["labels"][:, self._labels]
            if "weights" in arrays:
                arrays["mask"] = arrays["mask"] * arrays["weights"]
            return [arrays[name] for name in columns]

        def load(window):
            arrays = tf.numpy_function(
                read,
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
    """Transfers batches to the devices ``depth`` ahead, overlapping transfers with compute.

    Args:
      batches: Batches whose leading axis is B, or this process's part of them (see
        ``distributed.partitioning.process_rows``).
      sharding: How B is split over devices.
      depth: Number of batches in flight.
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
