"""The interacting layer of AutoInt: multi-head self-attention between fields."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.precision import working_dtype
from deepfm_jax.shardings import sharding_like
from deepfm_jax.typing import Embeddings


class InteractingLayer(nn.Module):
    """Replaces each field's vector by an attention-weighted combination of all fields' vectors.

    For head h and fields m, k, with e_m [D] and matrices W of shape [A, D]:

      psi_h(e_m, e_k) = <W_Query e_m, W_Key e_k>, alpha_mk = softmax over k of it   (Eq. 5)
      e~_m = sum_k alpha_mk W_Value e_k                                            (Eq. 6)

    then the heads are concatenated (Eq. 7), and e^Res_m = ReLU(e~_m + W_Res e_m) (Eq. 8). The
    attention of each field m to each field k is sown as ``attention`` [B, N, F, F] into the
    collection ``intermediates``. Pass ``mutable=["intermediates"]`` to read it.

    Attributes:
      heads: N.
      head_dim: A, width of a head.
      residual: Whether to add W_Res e_m.
      scaled: Whether to divide psi by sqrt(A), as transformers do; the paper does not.

    Source: Song et al. 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive
      Neural Networks", Eq. 5 to 8 (arXiv 1810.11921). Weights are initialised Glorot normal; the
      paper does not name an initialiser.
    """

    heads: int
    head_dim: int
    residual: bool = True
    scaled: bool = False

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch fields out"]:
        """Maps e [B, F, D] to e^Res [B, F, N A]."""
        query = self._project("query", embeddings)
        key = self._project("key", embeddings)
        value = self._project("value", embeddings)
        scores = jnp.einsum("bfna,bgna->bnfg", query, key)
        if self.scaled:
            scores = scores / jnp.sqrt(self.head_dim)
        attention = jax.nn.softmax(scores, axis=-1)
        self.sow("intermediates", "attention", attention)
        mixed = jnp.einsum("bnfg,bgna->bfna", attention, value)
        if self.residual:
            mixed = mixed + self._project("residual", embeddings)
        batch, fields = embeddings.shape[:2]
        return nn.relu(mixed).reshape(batch, fields, self.heads * self.head_dim)

    def _project(
        self, name: str, embeddings: Embeddings
    ) -> Float[Array, "batch fields heads head"]:
        shape = (embeddings.shape[2], self.heads, self.head_dim)
        # Each head has a matrix [D, A], so the fans are those of one head.
        init = nn.initializers.glorot_normal(in_axis=0, out_axis=2, batch_axis=1)
        kernel = self.param(f"{name}_kernel", init, shape, working_dtype(embeddings))
        # As a product of two matrices, because with more axes a CPU transposes needlessly.
        flat = jnp.dot(embeddings.reshape(-1, shape[0]), kernel.reshape(shape[0], -1))
        sharding = sharding_like(4, embeddings)
        return jnp.reshape(flat, (*embeddings.shape[:2], *shape[1:]), out_sharding=sharding)
