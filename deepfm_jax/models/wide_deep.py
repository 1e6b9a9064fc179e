"""Wide & Deep: memorised crosses beside a tower."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class WideDeep(nn.Module):
    """logit = w^T [x, phi(x)] + tower([e_1, ..., e_F]) + b (Eq. 3), both parts trained together.

    phi(x) are declared cross products of columns (Eq. 1): fields of the data set whose ids the
    encoder hashes (``schema.Cross``), which stand after all others. The wide part reads all
    fields, the deep part the plain ones alone; crosses have no vectors. Wide and deep share no
    weights: the wide part has first-order weights, the deep part vectors, and each may have its own
    optimizer (``optimizer.first_order_optimizer="ftrl"``).

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      crosses: How many of the last fields are crosses. A run takes it from the data set.
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over the embeddings.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems" (arXiv 1606.07792).
      Without crosses it is the "LR & DNN" of Guo et al. 2017.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    crosses: int = 0
    mlp_dims: Sequence[int] = (400, 400, 400)
    dropout: float = 0.2
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims,
            self.embed_dim,
            self.init_std,
            self.table_dtype,
            embedded_fields=self._deep_fields,
        )
        self.bias = self.param("bias", nn.initializers.zeros, ())
        self.tower = MLP(
            self.mlp_dims,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            compute_dtype=self.compute_dtype,
        )

    def check_together(self) -> None:
        """Checks the number of crosses; see ``check_hyperparameters``."""
        if self._deep_fields < 1:
            raise UserError(
                f"model.crosses={self.crosses} leaves none of {len(self.field_dims)} fields to the "
                "tower; it must be less"
            )

    @property
    def _deep_fields(self) -> int:
        return len(self.field_dims) - self.crosses

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        wide = self.bias + jnp.einsum("bf->b", rows.first_order_terms(values))
        embeddings = rows.embeddings(values, self._deep_fields)
        flat = embeddings.reshape(embeddings.shape[0], -1)
        return wide + self.tower(flat, train=train)[:, 0]
