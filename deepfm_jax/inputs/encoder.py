"""The base class of input encoders, which turn the vectors of a field's slots into one vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.typing import AnyArray

SlotValues = Float[AnyArray, "batch fields slots"]
SlotVectors = Float[AnyArray, "batch fields slots dim"]


def unit_scaled(values: SlotValues) -> Float[Array, "batch fields slots"]:
    """Values divided by the largest magnitude of their field, for scale-invariant weights.

    Sums and squares of the result neither overflow nor underflow. The gradient stops at the
    divisor, because a scale-invariant function has no gradient along the scale.
    """
    largest = jnp.max(jnp.abs(values), axis=2, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    return jnp.asarray(values) / largest


class InputEncoder(nn.Module):
    """A weighted sum of the vectors of a field's slots: e = sum_k a_k v_k.

    Encodes several fields with the same number of slots at once. A subclass defines a_k in
    ``weights``, or overrides the sum in ``__call__``. Slots are in the order of the column's list,
    oldest first for a history, followed by padding, which has vector 0 and value 0.
    """

    def weights(self, values: SlotValues) -> Float[Array, "batch fields slots"]:
        """Maps values x to a, both [B, F, K]; the first-order term of a field is sum_k a_k w_k."""
        raise NotImplementedError

    def __call__(
        self, vectors: SlotVectors, values: SlotValues
    ) -> Float[Array, "batch fields dim"]:
        """Maps vectors v [B, F, K, D] and values x [B, F, K] to e [B, F, D]."""
        return jnp.einsum("bfk,bfkd->bfd", self.weights(values), vectors)
