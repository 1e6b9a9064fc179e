"""Several tasks over one shared model."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import PositiveInt, ShareBelowOne
from deepfm_jax.heads.head import Head
from deepfm_jax.layers import MLP


class SharedBottom(Head):
    """One tower per task over the model's last hidden representation: logit_t = tower_t(h).

    The model is the shared bottom; its own last linear layer is not used, and the parameters of
    that layer get no gradient.

    Attributes:
      mlp_dims: Widths of the hidden layers of each task's tower; empty for a linear layer.
      dropout: Probability of dropping a hidden unit of the towers in training.

    Source: Caruana 1997, "Multitask Learning", Sec. 1.2.
    """

    mlp_dims: Sequence[PositiveInt] = ()
    dropout: ShareBelowOne = 0.0

    @nn.compact
    def __call__(self, logit, hidden, *, train=False):
        """Logits [B, T] from the hidden representation [B, H]."""
        del logit
        towers = [
            MLP(self.mlp_dims, dropout=self.dropout, name=f"tower_{task}")(hidden, train=train)
            for task in range(len(self.tasks))
        ]
        return jnp.concatenate(towers, axis=1)
