"""PNN: a tower over embeddings and their products."""

from collections.abc import Sequence
from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import DISTINCT, NOT_EMPTY
from deepfm_jax.inputs import Fields
from deepfm_jax.layers import KernelProducts, inner_products, outer_product_of_sum
from deepfm_jax.models.model import Outputs, TowerModel, flatten


class PNN(TowerModel):
    """Product-based neural network: logit = tower([z, p]), with p the products of embeddings z.

    The first hidden layer is ReLU(W_z z + W_p p + b), which is one dense layer over z and p side by
    side.

    Attributes:
      products: The products in p, one or more of: ``"inner"``, <e_i, e_j> of all pairs (IPNN);
        ``"outer"``, the outer product of sum_i e_i with itself (OPNN by superposition);
        ``"kernel"``, e_i^T K_ij e_j of all pairs (OPNN by kernel). Inner and outer give PNN*.

    Source: Qu et al. 2016, "Product-based Neural Networks for User Response Prediction" (arXiv
      1611.00144); the kernel product is from Qu et al. 2018 (arXiv 1807.00311). Deviation: W_p is a
      full matrix over pairs, which the paper factorizes to save time.
    """

    products: Annotated[Sequence[Literal["inner", "outer", "kernel"]], NOT_EMPTY, DISTINCT] = (
        "inner",
    )

    first_order = False

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the tower's last hidden layer."""
        e = fields.embeddings
        signals = [flatten(e)]
        if "inner" in self.products:
            signals.append(inner_products(e))
        if "outer" in self.products:
            signals.append(outer_product_of_sum(e))
        if "kernel" in self.products:
            signals.append(KernelProducts(name="kernel_products")(e))
        inputs = jnp.concatenate(signals, axis=1)
        logit, hidden = self.make_tower().with_hidden(inputs, train=train)
        return Outputs(logit[:, 0], hidden)
