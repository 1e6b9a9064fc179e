"""The cross networks of DCN-V2: with full matrices, and as a mixture of low-rank experts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import AnyArray


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, elementwise (Eq. 1); l layers reach order l + 1.

    Attributes:
      layers: Number of layers.

    Source: Wang et al. 2021, "DCN V2: Improved Deep & Cross Network and Practical Lessons for
      Web-scale Learning to Rank Systems", Eq. 1 (arXiv 2008.13535). Kernels are initialised Glorot
      normal, biases to zero.
    """

    layers: int

    @nn.compact
    def __call__(self, inputs: Float[AnyArray, "batch width"]) -> Float[Array, "batch width"]:
        """Maps x_0 [B, X] to x_L [B, X]."""
        init = nn.initializers.glorot_normal()
        x_0 = crossed = jnp.asarray(inputs)
        dtype = working_dtype(x_0)
        for layer in range(self.layers):
            dense = nn.Dense(
                inputs.shape[1], kernel_init=init, param_dtype=dtype, name=f"cross_{layer}"
            )
            crossed = x_0 * dense(crossed) + crossed
        return crossed


class LowRankCrossNetwork(nn.Module):
    """The cross network with a mixture of low-rank experts in each layer.

      x_{l+1} = sum_i G_i(x_l) E_i(x_l) + x_l                          (Eq. 3)
      E_i(x_l) = x_0 * (U_i g(C_i g(V_i^T x_l)) + b_l)                  (Eq. 4)

    with U_i, V_i of shape [X, R], C_i of shape [R, R], and a gate G = softmax(x_l W_gate) without
    bias.

    Attributes:
      layers: Number of layers.
      rank: R.
      experts: E, the number of experts in each layer. With one expert the gate is 1.

    Source: Wang et al. 2021, Eq. 3 and 4 (arXiv 2008.13535). The paper leaves the gate ("sigmoid or
      softmax") and g open; here they are softmax and tanh. All kernels, including the gate's, are
      initialised Glorot normal, biases to zero; the paper does not name an initialiser.
    """

    layers: int
    rank: int
    experts: int = 4

    @nn.compact
    def __call__(self, inputs: Float[AnyArray, "batch width"]) -> Float[Array, "batch width"]:
        """Maps x_0 [B, X] to x_L [B, X]."""
        width = inputs.shape[1]
        x_0 = crossed = jnp.asarray(inputs)
        dtype = working_dtype(x_0)
        for layer in range(self.layers):
            v = self._kernel(f"v_{layer}_kernel", width, self.rank, dtype)
            c = self._kernel(f"c_{layer}_kernel", self.rank, self.rank, dtype)
            u = self._kernel(f"u_{layer}_kernel", self.rank, width, dtype)
            bias = self.param(f"bias_{layer}", nn.initializers.zeros, (width,), dtype)
            # The axis q has length R, like r, but follows C.
            low = jnp.tanh(jnp.einsum("bx,exr->ber", crossed, v))
            low = jnp.tanh(jnp.einsum("ber,erq->beq", low, c))
            scores = nn.Dense(
                self.experts,
                use_bias=False,
                kernel_init=nn.initializers.glorot_normal(),
                param_dtype=dtype,
                name=f"gate_{layer}",
            )(crossed)
            gate = jax.nn.softmax(scores)
            # Gates sum to 1, so the bias and x_0, which all experts share, apply to the mixture.
            experts = jnp.einsum("beq,eqx->bx", gate[:, :, None] * low, u)
            crossed = x_0 * (experts + bias[None, :]) + crossed
        return crossed

    def _kernel(
        self, name: str, rows: int, columns: int, dtype: jnp.dtype
    ) -> Float[Array, "experts rows columns"]:
        init = nn.initializers.glorot_normal(in_axis=1, out_axis=2, batch_axis=0)
        return self.param(name, init, (self.experts, rows, columns), dtype)
