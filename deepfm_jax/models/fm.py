"""The factorization machine."""

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import factorization_machine
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class FM(nn.Module):
    """Factorization machine: logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors v_i.
      init_std: Standard deviation of the initialiser of v.
      table_dtype: What w and v are stored in, ``"float32"`` or ``"bfloat16"``.

    Source: Rendle 2010, "Factorization Machines", Eq. 1.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    init_std: float = 0.01
    table_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims, self.embed_dim, self.init_std, self.table_dtype
        )
        self.bias = self.param("bias", nn.initializers.zeros, ())

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        del train  # No part behaves differently in training.
        linear = self.bias + jnp.einsum("bf->b", rows.first_order_terms(values))
        return linear + factorization_machine(rows.embeddings(values))
