"""One binary task: a click, or none."""

import dataclasses

import jax
from jaxtyping import Array, Float

from deepfm_jax.losses import binary_cross_entropy, masked_mean
from deepfm_jax.typing import Logits


@dataclasses.dataclass(frozen=True)
class OneTask:
    """The head of a model with one logit: logloss in training, the sigmoid when scoring.

    Source: Guo et al. 2017, Eq. 1 (arXiv 1703.04247) for the sigmoid; Table 2's "LogLoss".
    """

    def loss(
        self, logits: Logits, labels: Float[Array, "batch 1"], mask: Float[Array, "batch"]
    ) -> Float[Array, ""]:
        """Mean logloss of the rows with mask 1; labels [B, 1] in {0, 1}."""
        return masked_mean(binary_cross_entropy(logits, labels[:, 0]), mask)

    def probabilities(self, logits: Logits) -> Float[Array, "batch"]:
        """P(click), [B], in (0, 1)."""
        return jax.nn.sigmoid(logits)
