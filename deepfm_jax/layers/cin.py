"""The compressed interaction network of xDeepFM."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.errors import UserError
from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import Embeddings


class CompressedInteractionNetwork(nn.Module):
    """Explicit vector-wise interactions of bounded order.

    With X^0 = e [F, D], layer k has H_k feature maps

      X^k_h = sum_i sum_j W^{k,h}_ij (X^{k-1}_i * X^0_j)   (Eq. 6, * elementwise)

    so layer k contains interactions of order k + 1. Each output map is summed over D to one number
    (Eq. 7), and the sums of all layers are concatenated (Eq. 8).

    Attributes:
      cin_dims: Number of feature maps H_k of each layer.
      split_half: Whether to output one half of each layer's maps and pass on the other half, as the
        authors' code does; the last layer outputs all its maps. Otherwise ("direct"), all maps are
        both output and passed on, as in the paper's Fig. 4.

    Source: Lian et al. 2018, "xDeepFM: Combining Explicit and Implicit Feature Interactions for
      Recommender Systems", Eq. 6 to 8 (arXiv 1803.05170). As in the paper, there is no activation
      between layers (its Sec. 4.4 finds the identity best). Weights are initialised Glorot normal;
      the paper does not name an initialiser.
    """

    cin_dims: Sequence[int]
    split_half: bool = True

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch maps"]:
        """Maps e [B, F, D] to p^+ [B, output maps].

        Raises:
          UserError: ``split_half`` is set, and a layer before the last has an odd number of maps.
        """
        maps, pooled = embeddings, []
        for layer, width in enumerate(self.cin_dims):
            is_last = layer == len(self.cin_dims) - 1
            if self.split_half and not is_last and width % 2:
                raise UserError(
                    f"cin_dims[{layer}]={width} is odd and cannot be split in half; make it even, "
                    "or set split_half=False"
                )
            shape = (maps.shape[1], embeddings.shape[1], width)
            init = nn.initializers.glorot_normal(in_axis=(0, 1), out_axis=2)
            kernel = self.param(f"layer_{layer}_kernel", init, shape, working_dtype(embeddings))
            # i: maps of the previous layer, f: fields. Forming the pairs first leaves one matrix
            # product with the kernel.
            pairs = jnp.einsum("bid,bfd->bdif", maps, embeddings)
            maps = jnp.einsum("bdif,ifh->bhd", pairs, kernel)
            output = maps
            if self.split_half and not is_last:
                maps, output = jnp.split(maps, 2, axis=1)
            pooled.append(jnp.einsum("bhd->bh", output))
        return jnp.concatenate(pooled, axis=1)
