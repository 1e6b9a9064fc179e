"""The tower: a stack of fully connected layers."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.errors import UserError
from deepfm_jax.layers.bfloat16 import bfloat16_dot_general
from deepfm_jax.layers.compute_dtype import COMPUTE_DTYPES, resolve_compute_dtype
from deepfm_jax.layers.dropout import Dropout
from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import AnyArray

# None selects flax's default product.
_DOTS = {"float32": None, "bfloat16": bfloat16_dot_general}
_ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh}


class MLP(nn.Module):
    """Blocks of Dense, BatchNorm (optional), activation and Dropout, then one linear layer.

    Attributes:
      mlp_dims: Widths H of the hidden layers.
      out_dim: Width of the last, linear layer; None omits it and returns the last block's output.
      dropout: Probability of *dropping* a hidden unit in training (the DeepFM paper's "0.5" is the
        probability of keeping one).
      compute_dtype: ``"float32"``, or ``"bfloat16"`` for the products of the hidden layers, with
        sums, parameters and everything else in float32 (see ``bfloat16_matmul``); ``"auto"`` for
        the faster one on the first device (see ``resolve_compute_dtype``). With float64 inputs,
        everything is float64, and ``"bfloat16"`` raises.
      batch_norm: Whether to normalise each block before its activation. Statistics are in
        ``batch_stats`` and change only if ``train``. A training batch of one row has no variance,
        so every row gives the same output. The variance is E[x^2] - E[x]^2 in float32, which is
        lost to rounding if a unit's mean is thousands of times its standard deviation.
      activation: ``"relu"`` or ``"tanh"``.

    Source: Guo et al. 2017, Eq. 4 and Sec. 2.1 (arXiv 1703.04247). Kernels are initialised Glorot
      normal, biases to zero; the paper does not name an initialiser. Deviation: the paper applies a
      sigmoid after the last layer; here the output is a logit.
    """

    mlp_dims: Sequence[int]
    out_dim: int | None = 1
    dropout: float = 0.0
    batch_norm: bool = False
    compute_dtype: str = "float32"
    activation: str = "relu"

    def __call__(
        self, inputs: Float[AnyArray, "batch width"], *, train: bool = False
    ) -> Float[Array, "batch out"]:
        """Maps [B, X] to [B, out_dim]; see ``with_hidden``."""
        return self.with_hidden(inputs, train=train)[0]

    @nn.compact
    def with_hidden(
        self, inputs: Float[AnyArray, "batch width"], *, train: bool = False
    ) -> tuple[Float[Array, "batch out"], Float[Array, "batch hidden"]]:
        """The output [B, out_dim] and the last hidden layer [B, H], which may be the input.

        Dropout in training requires the rng ``dropout``.

        Raises:
          UserError: the activation or compute dtype is unknown, or the compute dtype is bfloat16
            and the inputs are float64.
        """
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise UserError(
                f"compute_dtype={self.compute_dtype!r} is not one of {list(COMPUTE_DTYPES)}"
            )
        if self.activation not in _ACTIVATIONS:
            raise UserError(f"activation={self.activation!r} is not one of {sorted(_ACTIVATIONS)}")
        hidden = jnp.asarray(inputs)
        dtype, dot = working_dtype(hidden), self._dot(hidden)
        activation = _ACTIVATIONS[self.activation]
        kernel_init = nn.initializers.glorot_normal()
        for layer, width in enumerate(self.mlp_dims):
            hidden = nn.Dense(
                width,
                kernel_init=kernel_init,
                param_dtype=dtype,
                dot_general=dot,
                name=f"dense_{layer}",
            )(hidden)
            if self.batch_norm:
                # Momentum 0.9 and epsilon 1e-5 are what the published recipes were tuned with.
                hidden = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    param_dtype=dtype,
                    force_float32_reductions=dtype == jnp.float32,
                    name=f"batch_norm_{layer}",
                )(hidden)
            hidden = activation(hidden)
            hidden = Dropout(self.dropout, deterministic=not train)(hidden)
        if self.out_dim is None:
            return hidden, hidden
        out = nn.Dense(self.out_dim, kernel_init=kernel_init, param_dtype=dtype, name="out")
        return out(hidden), hidden

    def _dot(self, inputs):
        """The ``dot_general`` of the hidden layers; None for flax's default."""
        if inputs.dtype != jnp.float64:
            return _DOTS[resolve_compute_dtype(self.compute_dtype).name]
        if self.compute_dtype == "bfloat16":
            raise UserError(
                "compute_dtype='bfloat16' would round float64 inputs: leave it at 'float32', which "
                "computes in float64 if the inputs are float64, or use a float32 table"
            )
        return None
