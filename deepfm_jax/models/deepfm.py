"""DeepFM: a factorization machine and a tower over one shared embedding."""

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.inputs import Fields
from deepfm_jax.layers import bi_interaction, factorization_machine
from deepfm_jax.models.model import Outputs, TowerModel, flatten


class DeepFM(TowerModel):
    """DeepFM: logit = y_FM + y_DNN, both reading the same embeddings (Eq. 1).

    y_FM = w_0 + <w, x> + sum_{i<j} <v_i, v_j> x_i x_j (Eq. 2); y_DNN is a tower over the
    concatenated embeddings [e_1, ..., e_F] (Eq. 3 and 4). The output is a logit: apply
    ``jax.nn.sigmoid`` for the paper's probability.

    Attributes:
      shared: Whether FM and tower read the same embeddings, the model's main idea; False gives each
        its own (the paper's ablation "FM & DNN", with twice the vectors).

    Source: Guo et al. 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR
      Prediction" (arXiv 1703.04247). Deviation: w_0 is Rendle's; Eq. 2 omits it "for simplicity".
      The paper applies a sigmoid to y_DNN and another to the sum (Eq. 1); here y_DNN is linear, as
      in most implementations, because otherwise it could add at most 1 to a logit.
    """

    shared: bool = True

    @property
    def vectors_dim(self) -> int:
        """D, or 2 D: unshared vectors are halves of longer ones, so that one lookup reads both."""
        return self.embed_dim if self.shared else 2 * self.embed_dim

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the linear terms, pairwise vector and last hidden layer, [B, F + D + H]."""
        for_fm = for_tower = fields.embeddings
        if not self.shared:
            for_fm, for_tower = jnp.split(fields.embeddings, 2, axis=2)
        # The tower first: compiled for v5p:4x4x4, the other order needs 33 MB more for temporaries.
        y_dnn, hidden = self.make_tower().with_hidden(flatten(for_tower), train=train)
        y_fm = self.first_order_logit(fields) + factorization_machine(for_fm)
        hidden = [fields.first_order, bi_interaction(for_fm), hidden]
        return Outputs(y_fm + y_dnn[:, 0], jnp.concatenate(hidden, axis=1))
