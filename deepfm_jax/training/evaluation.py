"""Metrics of a network on a split, exact over all its examples."""

from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from deepfm_jax.distributed import hosts
from deepfm_jax.encoding.groups import decode_groups
from deepfm_jax.input.pipeline import Batch, prefetch_to_device
from deepfm_jax.metrics import TaskMetrics
from deepfm_jax.training.network import inputs_of
from deepfm_jax.training.state import Weights


def evaluate(
    score: Callable[..., jax.Array],
    weights: Weights,
    tasks: Sequence[str],
    batches: Iterable[Batch],
    sharding: jax.sharding.Sharding,
) -> TaskMetrics:
    """Gathers logits, labels, weights and groups of all examples; every process gets all of them.

    Args:
      score: Scoring step, from ``make_score_step``.
      weights: Weights of the network.
      tasks: Names of its tasks.
      batches: One pass over the split, or this process's part of it (see
        ``PreparedData.batches``).
      sharding: Sharding of a batch.
    """
    parts = []
    for batch in prefetch_to_device(batches, sharding):
        logits = score(weights, inputs_of(batch))
        parts.append((logits, batch["labels"], batch["mask"], *_groups(batch)))
    own = [
        np.concatenate([hosts.own_rows(array) for array in arrays])
        for arrays in zip(*parts, strict=True)
    ]
    logits, labels, mask, *groups = hosts.gather_rows(own)
    return TaskMetrics.from_batch(tasks, logits, labels, mask, *map(decode_groups, groups))


def _groups(batch) -> list[jax.Array]:
    return [batch["groups"]] if "groups" in batch else []
