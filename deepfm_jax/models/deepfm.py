"""DeepFM: a factorization machine and a tower over one shared embedding."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, factorization_machine
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class DeepFM(nn.Module):
    """DeepFM: logit = y_FM + y_DNN, both reading the same embeddings (Eq. 1).

    y_FM = w_0 + <w, x> + sum_{i<j} <v_i, v_j> x_i x_j (Eq. 2); y_DNN is a tower over the
    concatenated embeddings [e_1, ..., e_F] (Eq. 3 and 4). The output is a logit: apply
    ``jax.nn.sigmoid`` for the paper's probability.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      shared: Whether FM and tower read the same embeddings, which is the model's point; False gives
        each its own (the paper's ablation "FM & DNN", with twice the vectors).
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over the embeddings.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks (the paper does not).
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Guo et al. 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR
      Prediction" (arXiv 1703.04247). Deviation: w_0 is Rendle's; Eq. 2 omits it "for
      simplicity". The paper puts a sigmoid around y_DNN, and another around the sum (Eq. 1); y_DNN
      is linear here, as it is mostly read, for else it could add no more than 1 to a logit.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    shared: bool = True
    mlp_dims: Sequence[int] = (400, 400, 400)
    dropout: float = 0.2
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        # Unshared vectors are the halves of longer ones: one lookup serves both.
        width = self.embed_dim if self.shared else 2 * self.embed_dim
        self.table = EmbeddingTable(self.field_dims, width, self.init_std, self.table_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, ())
        self.tower = MLP(
            self.mlp_dims,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            compute_dtype=self.compute_dtype,
        )

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        linear = self.bias + jnp.einsum("bf->b", rows.first_order_terms(values))
        for_fm = for_tower = rows.embeddings(values)
        if not self.shared:
            for_fm, for_tower = jnp.split(for_fm, 2, axis=2)
        flat = for_tower.reshape(for_tower.shape[0], -1)
        deep = self.tower(flat, train=train)[:, 0]
        return linear + factorization_machine(for_fm) + deep
