"""Dropout on any mesh."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepfm_jax.shardings import sharding_like


class Dropout(nn.Dropout):
    """``flax.linen.Dropout`` with a mask that is sharded like the inputs on an explicit mesh.

    The same units are dropped on every mesh.
    """

    def __call__(self, inputs, deterministic=None, rng=None):
        """See ``flax.linen.Dropout``."""
        is_off = nn.merge_param("deterministic", self.deterministic, deterministic)
        sharding = sharding_like(inputs.ndim, inputs)
        if sharding is None or is_off or self.rate in (0.0, 1.0):
            return super().__call__(inputs, deterministic, rng)
        key = self.make_rng(self.rng_collection) if rng is None else rng
        keep = 1.0 - self.rate
        kept = jax.random.bernoulli(key, keep, inputs.shape, out_sharding=sharding)
        return jnp.where(kept, inputs / keep, 0)
