"""PNN: a tower over embeddings and their products."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, KernelProducts, inner_products, outer_product_of_sum
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class PNN(nn.Module):
    """Product-based neural network: logit = tower([z, p]), p the products of the embeddings z.

    The first hidden layer is ReLU(W_z z + W_p p + b), which is one dense layer over z
    and p side by side.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      products: Which products p is made of, one or more of: ``"inner"``, <e_i, e_j> of all pairs
        (IPNN); ``"outer"``, the outer product of sum_i e_i with itself (OPNN by superposition);
        ``"kernel"``, e_i^T K_ij e_j of all pairs (OPNN by kernel). Inner and outer make PNN*.
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over its inputs.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the tower multiplies in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Qu et al. 2016, "Product-based Neural Networks for User Response Prediction" (arXiv
      1611.00144); the kernel product from Qu et al. 2018 (arXiv 1807.00311). Deviation: W_p is a
      full matrix over pairs, which the paper factorises to save time.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    products: Sequence[Literal["inner", "outer", "kernel"]] = ("inner",)
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
        if "kernel" in self.products:
            self.kernel_products = KernelProducts()
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
        signals = [embeddings.reshape(embeddings.shape[0], -1)]
        if "inner" in self.products:
            signals.append(inner_products(embeddings))
        if "outer" in self.products:
            signals.append(outer_product_of_sum(embeddings))
        if "kernel" in self.products:
            signals.append(self.kernel_products(embeddings))
        return self.tower(jnp.concatenate(signals, axis=1), train=train)[:, 0]
