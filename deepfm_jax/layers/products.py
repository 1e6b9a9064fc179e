"""The products of product-based neural networks: inner, outer with superposition, and kernel."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deepfm_jax.errors import UserError
from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import Embeddings


def field_pairs(fields: int) -> tuple[np.ndarray, np.ndarray]:
    """The fields i and the fields j of all pairs i < j, [P] each, in lexicographic order."""
    return np.triu_indices(fields, k=1)


def inner_products(embeddings: Embeddings) -> Float[Array, "batch pairs"]:
    """p_ij = <e_i, e_j> of all pairs i < j, [B, P].

    Source: Qu et al. 2016, "Product-based Neural Networks for User Response Prediction", inner
      product-based network (arXiv 1611.00144). Deviation: the paper's matrix p is symmetric and
      keeps its diagonal; here each pair occurs once, and squares are omitted.
    """
    gram = jnp.einsum("bfd,bgd->bfg", embeddings, embeddings)
    first, second = field_pairs(embeddings.shape[1])
    # Without the promise that pairs are unique, a GPU would add their gradients by atomics.
    return gram.at[:, first, second].get(unique_indices=True, indices_are_sorted=True)


def outer_product_of_sum(embeddings: Embeddings) -> Float[Array, "batch squared"]:
    """sum_i sum_j e_i e_j^T = f f^T with f = sum_i e_i, flat: [B, D^2].

    Source: Qu et al. 2016, outer product-based network, superposition (arXiv 1611.00144).
    """
    total = jnp.einsum("bfd->bd", embeddings)
    outer = jnp.einsum("bd,bc->bdc", total, total)
    return outer.reshape(outer.shape[0], -1)


class KernelProducts(nn.Module):
    """p_ij = e_i^T K_ij e_j of all pairs i < j, each with its own kernel [D, D].

    It weights the outer product e_i e_j^T of each pair separately, whereas the superposition first
    sums them. It costs O(F^2 D^2) per row.

    Source: Qu et al. 2018, "Product-based Neural Networks for User Response Prediction over
      Multi-field Categorical Data", kernel product (arXiv 1807.00311).
    """

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch pairs"]:
        """Maps e [B, F, D] to products [B, P].

        Raises:
          UserError: there are fewer than two fields.
        """
        fields, dim = embeddings.shape[1:]
        if fields < 2:
            raise UserError("kernel products need pairs of fields, but there is only one field")
        init = nn.initializers.glorot_normal(in_axis=1, out_axis=2, batch_axis=0)
        shape = (fields * (fields - 1) // 2, dim, dim)
        kernel = self.param("kernel", init, shape, working_dtype(embeddings))
        by_input = kernel.transpose(1, 0, 2)
        products, start = [], 0
        # The pairs of a field with all later fields are one matrix product. Computing all pairs at
        # once would first copy P vectors together for each row.
        for field in range(fields - 1):
            after = embeddings[:, field + 1 :]
            stop = start + after.shape[1]
            left = embeddings[:, field] @ by_input[:, start:stop].reshape(dim, -1)
            products.append(jnp.einsum("bgc,bgc->bg", left.reshape(after.shape), after))
            start = stop
        return jnp.concatenate(products, axis=1)
