"""The factorization machine."""

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.inputs import Fields
from deepfm_jax.layers import bi_interaction, factorization_machine
from deepfm_jax.models.model import EmbeddingModel, Outputs


class FM(EmbeddingModel):
    """Factorization machine: logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j.

    Source: Rendle 2010, "Factorization Machines", Eq. 1.
    """

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the linear terms beside the pairwise vector, [B, F + D]."""
        linear, pairs = self.first_order_logit(fields), factorization_machine(fields.embeddings)
        hidden = [fields.first_order, bi_interaction(fields.embeddings)]
        return Outputs(linear + pairs, jnp.concatenate(hidden, axis=1))
