"""Sum pooling divided by the square root of the sum of squared weights."""

import jax.numpy as jnp

from deepfm_jax.inputs.encoder import InputEncoder, unit_scaled


class SqrtNPooling(InputEncoder):
    """e = sum_k x_k v_k / sqrt(sum_k x_k^2).

    If the vectors are independent, the variance of e does not depend on the number of values.
    """

    def weights(self, values):
        """a_k = x_k / sqrt(sum_j x_j^2)."""
        values = unit_scaled(values)
        square = jnp.sum(values * values, axis=2, keepdims=True)
        # The gradient of sqrt at 0 is infinite, even if its result is not used.
        return values / jnp.sqrt(jnp.where(square == 0, 1, square))
