"""The compressed interaction network of xDeepFM."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.errors import UserError
from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import Embeddings


class CompressedInteractionNetwork(nn.Module):
    """Explicit interactions of bounded order, vector by vector.

    With X^0 = e [F, D], layer k has H_k feature maps

      X^k_h = sum_i sum_j W^{k,h}_ij (X^{k-1}_i * X^0_j)   (Eq. 6, * by element)

    so that layer k holds interactions of order k + 1. Each map that is put out is summed over D to
    one number (Eq. 7), and those of all layers stand side by side (Eq. 8).

    Attributes:
      cin_dims: Feature maps H_k of each layer.
      split_half: Put out one half of each layer's maps and pass the other half on, as the authors'
        code does; the last layer's are all put out. Otherwise ("direct") all maps go both ways, as
        the paper's Fig. 4 has it.

    Source: Lian et al. 2018, "xDeepFM: Combining Explicit and Implicit Feature Interactions for
      Recommender Systems", Eq. 6 to 8 (arXiv 1803.05170). Like there, no activation stands between
      layers (its Sec. 4.4 finds the identity best). Weights start Glorot normal; the paper names no
      initialiser.
    """

    cin_dims: Sequence[int]
    split_half: bool = True

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch maps"]:
        """p^+ [B, maps put out] of e [B, F, D].

        Raises:
          UserError: an odd layer before the last that should be split.
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
            # I: maps of the layer before, F: fields. The pairs first: their product with the kernel
            # is then one matrix product.
            pairs = jnp.einsum("bid,bfd->bdif", maps, embeddings)
            maps = jnp.einsum("bdif,ifh->bhd", pairs, kernel)
            put_out = maps
            if self.split_half and not is_last:
                maps, put_out = jnp.split(maps, 2, axis=1)
            pooled.append(jnp.einsum("bhd->bh", put_out))
        return jnp.concatenate(pooled, axis=1)
