"""A tower over embeddings: the deep part of the lineage by itself."""

from collections.abc import Sequence

import flax.linen as nn

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class DNN(nn.Module):
    """Deep only: logit = tower([e_1, ..., e_F]), without first order or explicit interactions.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over the embeddings.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: the deep component of Guo et al. 2017, Eq. 3 and 4 (arXiv 1703.04247); with its FM
      component taken away, one of the paper's ablations.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    mlp_dims: Sequence[int] = (400, 400, 400)
    dropout: float = 0.2
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims, self.embed_dim, self.init_std, self.table_dtype, first_order=False
        )
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
        embeddings = rows.embeddings(values)
        flat = embeddings.reshape(embeddings.shape[0], -1)
        return self.tower(flat, train=train)[:, 0]
