"""AutoInt: self-attention between fields."""

from collections.abc import Sequence

import flax.linen as nn

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, InteractingLayer
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class AutoInt(nn.Module):
    """logit = w^T [e^Res_1, ..., e^Res_F] + b (Eq. 9), after layers of attention between fields.

    With ``mlp_dims`` a tower over the embeddings is added: AutoInt+. Each layer's attention is sown
    into the collection ``intermediates`` (see ``InteractingLayer``):

      logits, found = model.apply(variables, ids, mutable=["intermediates"])
      found["intermediates"]["interacting_0"]["attention"][0]  # [B, heads, F, F]

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      attention_layers: Interacting layers, at least one.
      heads: Of each layer.
      head_dim: Width of a head.
      residual: Whether each layer adds a projection of its input.
      scaled: Whether attention is scaled by 1 / sqrt(head_dim); the paper does not.
      mlp_dims: Widths of the tower's hidden layers; empty for AutoInt, without a tower.
      dropout: Probability of dropping a hidden unit of the tower in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Song et al. 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive
      Neural Networks", Eq. 5 to 9 and Sec. 5.5 (arXiv 1810.11921). Deviation: dropout is the
      tower's alone; the paper has it in AutoInt itself, on the smallest of its data sets.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    attention_layers: int = 3
    heads: int = 2
    head_dim: int = 32
    residual: bool = True
    scaled: bool = False
    mlp_dims: Sequence[int] = ()
    dropout: float = 0.0
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims, self.embed_dim, self.init_std, self.table_dtype, first_order=False
        )
        self.interacting = [
            InteractingLayer(self.heads, self.head_dim, self.residual, self.scaled)
            for _ in range(self.attention_layers)
        ]
        self.out = nn.Dense(1, kernel_init=nn.initializers.glorot_normal())
        if self.mlp_dims:
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
        attended = embeddings
        for layer in self.interacting:
            attended = layer(attended)
        logits = self.out(attended.reshape(attended.shape[0], -1))[:, 0]
        if self.mlp_dims:
            flat = embeddings.reshape(embeddings.shape[0], -1)
            logits += self.tower(flat, train=train)[:, 0]
        return logits
