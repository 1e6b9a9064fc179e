"""DCN-V2: a cross network and a tower, one after the other or side by side."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, CrossNetwork, LowRankCrossNetwork
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class DCNv2(nn.Module):
    """Improved deep & cross network: logit = w^T x_final + b.

    Stacked, x_final is the last hidden layer of a tower over the cross network's output; parallel,
    the cross network's output and the tower's last hidden layer side by side (Fig. 1).

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      cross_layers: Layers of the cross network; 0 for none.
      rank: R of a mixture of low-rank cross layers; 0 for full matrices.
      experts: Of each low-rank layer.
      structure: ``"stacked"`` or ``"parallel"``.
      mlp_dims: Widths of the tower's hidden layers; empty for the cross network alone.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Wang et al. 2021, "DCN V2: Improved Deep & Cross Network and Practical Lessons for
      Web-scale Learning to Rank Systems", Sec. 3 (arXiv 2008.13535). Deviation: its last layer has
      no b.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    cross_layers: int = 3
    rank: int = 0
    experts: int = 4
    structure: Literal["stacked", "parallel"] = "parallel"
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
        if self.rank:
            self.cross = LowRankCrossNetwork(self.cross_layers, self.rank, self.experts)
        else:
            self.cross = CrossNetwork(self.cross_layers)
        self.tower = MLP(
            self.mlp_dims,
            out_dim=None,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            compute_dtype=self.compute_dtype,
        )
        self.out = nn.Dense(1, kernel_init=nn.initializers.glorot_normal())

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        embeddings = rows.embeddings(values)
        flat = embeddings.reshape(embeddings.shape[0], -1)
        crossed = self.cross(flat)
        if self.structure == "stacked":
            final = self.tower(crossed, train=train)
        elif self.mlp_dims:
            final = jnp.concatenate([crossed, self.tower(flat, train=train)], axis=1)
        else:
            final = crossed
        return self.out(final)[:, 0]
