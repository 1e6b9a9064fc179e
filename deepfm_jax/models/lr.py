"""Logistic regression, the first order of every model of the lineage."""

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class LR(nn.Module):
    """Logistic regression: logit = w_0 + sum_i w_i x_i.

    It models no interaction between fields.

    Attributes:
      field_dims: Rows of each field.
      table_dtype: What the weights are stored in, ``"float32"`` or ``"bfloat16"``.

    Source: the baseline of Guo et al. 2017, Table 2 (arXiv 1703.04247).
    """

    field_dims: FieldDims
    table_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(self.field_dims, 0, dtype=self.table_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, ())

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        del train  # No part behaves differently in training.
        return self.bias + jnp.einsum("bf->b", rows.first_order_terms(values))
