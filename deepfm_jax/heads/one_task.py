"""One binary task: a click, or none."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float64, Shaped
from scipy.special import expit

from deepfm_jax.heads.losses import binary_cross_entropy, masked_mean
from deepfm_jax.typing import Logits


@dataclasses.dataclass(frozen=True)
class OneTask:
    """The head of a model with one logit: logloss in training, the sigmoid when scoring.

    Source: Guo et al. 2017, Eq. 1 (arXiv 1703.04247) for the sigmoid; Table 2's "LogLoss".
    """

    def loss(
        self, logits: Logits, labels: Float[Array, "batch 1"], mask: Float[Array, "batch"]
    ) -> Float[Array, ""]:
        """Mean logloss of the rows, weighted by the mask; labels [B, 1] in {0, 1}."""
        return masked_mean(binary_cross_entropy(logits, labels[:, 0]), mask)

    def probabilities(self, logits: Shaped[Any, "batch"]) -> Float64[np.ndarray, "batch"]:
        """P(click), [B], in [0, 1], on the host.

        In float64, for in float32 nearby logits become one probability, and that ties rows that
        the model ranks.
        """
        return expit(np.asarray(logits, dtype=np.float64))
