"""Mean pooling of the slots of a field."""

import jax.numpy as jnp

from deepfm_jax.inputs.encoder import InputEncoder, unit_scaled


class MeanPooling(InputEncoder):
    """e = sum_k x_k v_k / sum_k x_k, the mean weighted by the values.

    If the values sum to 0, e is the weighted sum in units of the largest value.
    """

    def weights(self, values):
        """a_k = x_k / sum_j x_j."""
        values = unit_scaled(values)
        total = jnp.sum(values, axis=2, keepdims=True)
        return values / jnp.where(total == 0, 1, total)
