"""Metrics of a model on a split, exact over all its rows."""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from deepfm_jax.distributed import hosts
from deepfm_jax.encoding.groups import decode_groups
from deepfm_jax.input.pipeline import Batch, prefetch_to_device
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.training.state import Weights


def evaluate(
    score: Callable[..., jax.Array],
    weights: Weights,
    batches: Iterable[Batch],
    sharding: jax.sharding.Sharding,
) -> BinaryMetrics:
    """Logits and labels of all rows, with their weights and groups, of all processes in each.

    Args:
      score: What ``make_score_step`` returned.
      weights: The model's.
      batches: One pass over the split, or this process's part of it (see
        ``PreparedData.batches``).
      sharding: How a batch lies on the devices.
    """
    parts = []
    for batch in prefetch_to_device(batches, sharding):
        logits = score(weights, batch["ids"], batch.get("values"))
        parts.append((logits, batch["labels"], batch["mask"], *_groups(batch)))
    own = [
        np.concatenate([hosts.own_rows(array) for array in arrays])
        for arrays in zip(*parts, strict=True)
    ]
    logits, labels, mask, *groups = hosts.gather_rows(own)
    return BinaryMetrics.from_batch(logits, labels[:, 0], mask, *map(decode_groups, groups))


def _groups(batch) -> list[jax.Array]:
    return [batch["groups"]] if "groups" in batch else []
