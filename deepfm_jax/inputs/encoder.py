"""What an input encoder is: how the vectors of a field's slots become one vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.typing import AnyArray

SlotValues = Float[AnyArray, "batch fields slots"]
SlotVectors = Float[AnyArray, "batch fields slots dim"]


def unit_scaled(values: SlotValues) -> Float[Array, "batch fields slots"]:
    """Values divided by the largest magnitude of their field, for weights that have no scale.

    Sums and squares of the result neither overflow nor vanish. No gradient goes through the
    divisor: a function that does not depend on the scale has none along it.
    """
    largest = jnp.max(jnp.abs(values), axis=2, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    return jnp.asarray(values) / largest


class InputEncoder(nn.Module):
    """A weighted sum of the vectors of a field's slots: e = sum_k a_k v_k.

    Encodes several fields with equally many slots at once. A subclass says what a_k is in
    ``weights``, or replaces the sum in ``__call__``. Slots are in the order of the column's list,
    for a history the oldest first, and padding follows them; it has vector 0 and value 0.
    """

    def weights(self, values: SlotValues) -> Float[Array, "batch fields slots"]:
        """A [B, F, K] for values x [B, F, K]; the first-order term of a field is sum_k a_k w_k."""
        raise NotImplementedError

    def __call__(
        self, vectors: SlotVectors, values: SlotValues
    ) -> Float[Array, "batch fields dim"]:
        """E [B, F, D] for vectors v [B, F, K, D] and values x [B, F, K]."""
        return jnp.einsum("bfk,bfkd->bfd", self.weights(values), vectors)
