"""FNN: a tower that starts from a factorization machine."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class FNN(nn.Module):
    """Factorisation-machine supported neural network: logit = tower([w_0, z_1, ..., z_F]).

    z_i = (w_i x_i, v_i x_i) is the first-order weight and the latent vector of field i. The module
    is the second of two stages: its ``bias`` and ``table`` have the names and shapes of ``FM``'s,
    whose trained weights are to be put there first (a run's ``pretraining`` section does both
    stages). Untrained, it is a tower over fields of D + 1 numbers.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over its inputs.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      activation: Of the hidden layers, ``"tanh"`` as in the paper or ``"relu"``.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Zhang et al. 2016, "Deep Learning over Multi-field Categorical Data", Sec. 3.1 (arXiv
      1601.02376). The table goes on training in the second stage, as there. Deviation: the paper
      also trains the hidden layers one by one before that, as restricted Boltzmann machines by
      contrastive divergence; here they start at random.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    mlp_dims: Sequence[int] = (400, 400, 400)
    dropout: float = 0.2
    batch_norm: bool = False
    activation: Literal["tanh", "relu"] = "tanh"
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims, self.embed_dim, self.init_std, self.table_dtype
        )
        self.bias = self.param("bias", nn.initializers.zeros, ())
        self.tower = MLP(
            self.mlp_dims,
            activation=self.activation,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            compute_dtype=self.compute_dtype,
        )

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        first_order, embeddings = rows.first_order_terms(values), rows.embeddings(values)
        batch = first_order.shape[0]
        fields = jnp.concatenate([first_order[:, :, None], embeddings], axis=2).reshape(batch, -1)
        bias = jnp.broadcast_to(self.bias, (batch, 1))
        return self.tower(jnp.concatenate([bias, fields], axis=1), train=train)[:, 0]
