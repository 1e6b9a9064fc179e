"""The head interface: a head owns the labels, loss and probabilities of one or more tasks."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Shaped
from scipy.special import expit

from deepfm_jax.heads.losses import binary_cross_entropy, masked_mean
from deepfm_jax.typing import AnyArray, Logits

TaskLogits = Float[Array, "batch tasks"]
Labels = Float[AnyArray, "batch tasks"]


class Head(nn.Module):
    """Binary tasks on top of a model; a subclass defines ``__call__``.

    Attributes:
      tasks: T names, one per label.
    """

    tasks: tuple[str, ...] = ("label",)

    def __call__(
        self, logit: Logits, hidden: Float[AnyArray, "batch hidden"], *, train: bool = False
    ) -> TaskLogits:
        """Logits of all tasks [B, T].

        Args:
          logit: The model's own logit, [B].
          hidden: The model's last hidden representation, [B, H].
          train: Whether dropout is active.
        """
        raise NotImplementedError

    def check_together(self) -> None:
        """Raises UserError if the head does not fit its tasks, or its hyperparameters conflict."""

    def loss(
        self, logits: TaskLogits, labels: Labels, mask: Float[AnyArray, "batch"]
    ) -> Float[Array, ""]:
        """The mean over tasks of the mean logloss of each task's examples, in nats.

        Args:
          logits: [B, T].
          labels: [B, T] in {0, 1}; NaN marks a missing label, and the example does not count for
            that task.
          mask: Weight of each example, [B]; 0 for padding.
        """
        losses = [
            task_loss(logits[:, task], labels[:, task], mask) for task in range(len(self.tasks))
        ]
        return sum(losses[1:], losses[0]) / len(losses)

    def probabilities(
        self, logits: Shaped[AnyArray, "batch tasks"]
    ) -> Float64[np.ndarray, "batch tasks"]:
        """P(label = 1) of each task, [B, T], on the host.

        They are float64, because in float32 nearby logits round to the same probability, which
        ties examples that the model ranks.
        """
        return expit(np.asarray(logits, dtype=np.float64))


def task_loss(
    logits: Logits, labels: Float[AnyArray, "batch"], mask: Float[AnyArray, "batch"]
) -> Float[Array, ""]:
    """Mean logloss of one task over the examples that have its label, weighted by the mask."""
    labels = jnp.asarray(labels)
    labelled = ~jnp.isnan(labels)
    losses = binary_cross_entropy(logits, jnp.where(labelled, labels, 0.0))
    return masked_mean(losses, jnp.where(labelled, jnp.asarray(mask), 0.0))
