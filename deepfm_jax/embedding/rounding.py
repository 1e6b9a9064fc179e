"""Rounding of float32 to bfloat16: stochastic, for updates of a table, and to nearest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float32


def round_stochastically(
    key: jax.Array, values: Float32[Array, "*shape"]
) -> BFloat16[Array, "*shape"]:
    """Rounds up or down at random, so that the expectation of the result is the value.

    bfloat16 has 8 significant bits: rounding to nearest would lose every update of w = 1 below
    0.002, as most updates in training are. Rounding x up with probability (x - down) / (up - down)
    preserves them in expectation. To do so, 16 random bits are added below the last bit that is
    kept, and the lower bits are truncated.

    Args:
      key: Random key.
      values: Any float32; infinities and NaN are unchanged.

    Source: Gupta et al. 2015, "Deep learning with limited numerical precision", sec. 3.2 (arXiv
      1502.02551).
    """
    noise = jax.random.bits(key, values.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32) + noise
    cut = jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    # Noise would carry the largest finite numbers into infinity, and make the bits of NaN overflow.
    return jnp.where(jnp.isfinite(values) & jnp.isfinite(cut), cut, values.astype(jnp.bfloat16))


def round_to_nearest(values: Float32[Array, "*shape"]) -> BFloat16[Array, "*shape"]:
    """Rounds to nearest, ties to even, as ``astype`` does.

    It operates on the bits because the TPU compiler would move a conversion of rows before the
    gather that reads them, and convert the whole table at every step.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    cut = jax.lax.bitcast_convert_type((rounded >> 16).astype(jnp.uint16), jnp.bfloat16)
    # For a NaN, the carry may reach the sign bit.
    return jnp.where(jnp.isnan(values), jnp.bfloat16(jnp.nan), cut)
