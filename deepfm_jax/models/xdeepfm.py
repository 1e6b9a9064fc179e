"""xDeepFM: a compressed interaction network beside a tower."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, CompressedInteractionNetwork
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class XDeepFM(nn.Module):
    """logit = w^T x + w_cin^T p^+ + tower([e_1, ..., e_F]) + b (Eq. 9), over one embedding.

    p^+ are the pooled feature maps of the compressed interaction network.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      cin_dims: Feature maps of each CIN layer; empty for no CIN.
      split_half: Whether half of each CIN layer's maps are put out and the others passed on.
      mlp_dims: Widths of the tower's hidden layers; empty for no tower (the paper's Sec. 4.2, CIN).
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Lian et al. 2018, "xDeepFM: Combining Explicit and Implicit Feature Interactions for
      Recommender Systems" (arXiv 1803.05170): CIN alone is compared in its Sec. 4.2, the whole in
      its Sec. 4.3.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    cin_dims: Sequence[int] = (128, 128)
    split_half: bool = True
    mlp_dims: Sequence[int] = (400, 400, 400)
    dropout: float = 0.2
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(
            self.field_dims, self.embed_dim, self.init_std, self.table_dtype
        )
        self.bias = self.param("bias", nn.initializers.zeros, ())
        if self.cin_dims:
            self.cin = CompressedInteractionNetwork(self.cin_dims, self.split_half)
            self.cin_out = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.glorot_normal())
        if self.mlp_dims:
            self.tower = MLP(
                self.mlp_dims,
                dropout=self.dropout,
                batch_norm=self.batch_norm,
                compute_dtype=self.compute_dtype,
            )

    def check_together(self) -> None:
        """Checks that layers can be split; see ``check_hyperparameters``."""
        for layer, width in enumerate(self.cin_dims[:-1]):
            if self.split_half and width % 2:
                raise UserError(
                    f"model.cin_dims[{layer}]={width} is odd and cannot be split in half; make it "
                    "even, or set model.split_half=False"
                )

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        logits = self.bias + jnp.einsum("bf->b", rows.first_order_terms(values))
        embeddings = rows.embeddings(values)
        if self.cin_dims:
            logits += self.cin_out(self.cin(embeddings))[:, 0]
        if self.mlp_dims:
            flat = embeddings.reshape(embeddings.shape[0], -1)
            logits += self.tower(flat, train=train)[:, 0]
        return logits
