"""The tower: a stack of fully connected layers."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from deepfm_jax.errors import UserError
from deepfm_jax.layers.bfloat16 import bfloat16_dot_general
from deepfm_jax.typing import AnyArray

# None is flax's own product.
_DOTS = {"float32": None, "bfloat16": bfloat16_dot_general}


class MLP(nn.Module):
    """Blocks of Dense, BatchNorm (optional), ReLU, Dropout, then one Dense without activation.

    Attributes:
      mlp_dims: Widths H of the hidden layers.
      out_dim: Width of the last, linear layer.
      dropout: Probability of *dropping* a hidden unit in training (the DeepFM paper's "0.5" is the
        probability of keeping one).
      compute_dtype: ``"float32"``, or ``"bfloat16"`` for the products of the hidden layers, with
        sums, parameters and everything else in float32 (see ``bfloat16_matmul``).
      batch_norm: Normalise each block before its ReLU; statistics live in ``batch_stats`` and move
        only when ``train``.

    Source: Guo et al. 2017, Eq. 3 and Sec. 2.1 (arXiv 1703.04247). Kernels start Glorot normal,
      biases at zero; the paper names no initialiser.
    """

    mlp_dims: Sequence[int]
    out_dim: int = 1
    dropout: float = 0.0
    batch_norm: bool = False
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(
        self, inputs: Float[AnyArray, "batch width"], *, train: bool = False
    ) -> Float[Array, "batch out"]:
        """Maps [B, width] to [B, out_dim]; dropping in training needs the rng ``dropout``."""
        if self.compute_dtype not in _DOTS:
            raise UserError(f"compute_dtype={self.compute_dtype!r} is not one of {sorted(_DOTS)}")
        dot = _DOTS[self.compute_dtype]
        kernel_init = nn.initializers.glorot_normal()
        hidden = inputs
        for layer, width in enumerate(self.mlp_dims):
            dense = nn.Dense(width, kernel_init=kernel_init, dot_general=dot, name=f"dense_{layer}")
            hidden = dense(hidden)
            if self.batch_norm:
                # Momentum 0.9 and epsilon 1e-5 are what the published recipes were tuned with.
                hidden = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    name=f"batch_norm_{layer}",
                )(hidden)
            hidden = nn.relu(hidden)
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return nn.Dense(self.out_dim, kernel_init=kernel_init, name="out")(hidden)
