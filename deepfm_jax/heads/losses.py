"""The training loss: cross entropy from logits, and a mean that ignores padding."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from deepfm_jax.typing import Logits


def binary_cross_entropy(logits: Logits, labels: Shaped[Array, "batch"]) -> Float[Array, "batch"]:
    """Negative log likelihood of each example's label, in nats.

    l(z, y) = -y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)), with dl/dz = sigmoid(z) - y. It is
    computed from the logit by log-sigmoids, so it stays finite and exact where a sigmoid would
    round to 0 or 1: l(1e4, 0) = 1e4.

    Args:
      logits: z; log(p / (1 - p)).
      labels: y in {0, 1}, or a probability in [0, 1]; same shape as ``logits``. A [B, 1] would
        broadcast to [B, B], hence the check.

    Raises:
      ValueError: shapes differ.

    Source: Guo et al. 2017, sec. 3.1 (arXiv:1703.04247), log loss; the stable form is optax's.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"logits {logits.shape} and labels {labels.shape} differ in shape")
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))


def masked_mean(values: Float[Array, "batch"], mask: Shaped[Array, "batch"]) -> Float[Array, ""]:
    """sum(mask values) / sum(mask), or 0, with gradient 0, if the mask is all 0.

    Args:
      values: One number per example; padding is never read, so it may be NaN or infinite.
      mask: Weights >= 0, or booleans; 0 for padding.

    Raises:
      ValueError: shapes differ.
    """
    if values.shape != mask.shape:
        raise ValueError(f"values {values.shape} and mask {mask.shape} differ in shape")
    weights = mask.astype(values.dtype)
    total = jnp.sum(weights)
    # where() before the product: 0 * NaN is NaN.
    kept = jnp.where(weights > 0, values, 0.0)
    return jnp.sum(weights * kept) / jnp.where(total > 0, total, 1.0)
