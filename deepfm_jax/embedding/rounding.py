"""Rounding of float32 to bfloat16: at random, for updates of a table, and to the nearest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float32


def round_stochastically(
    key: jax.Array, values: Float32[Array, "*shape"]
) -> BFloat16[Array, "*shape"]:
    """Rounds up or down at random, so that the expectation of the result is the value.

    bfloat16 has 8 significant bits: w = 1 rounded to nearest swallows every update below 0.002, and
    most of training's are. Rounding x up with probability (x - down) / (up - down) keeps them
    in the mean: 16 random bits are added below the last bit that is kept, and the rest is cut off.

    Args:
      key: Random key.
      values: Any float32; infinities and NaN stay as they are.

    Source: Gupta et al. 2015, "Deep learning with limited numerical precision", sec. 3.2 (arXiv
      1502.02551).
    """
    noise = jax.random.bits(key, values.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32) + noise
    cut = jax.lax.bitcast_convert_type((bits >> 16).astype(jnp.uint16), jnp.bfloat16)
    # Near the largest finite number, noise would carry into infinity's bits, and NaN's wrap around.
    return jnp.where(jnp.isfinite(values) & jnp.isfinite(cut), cut, values.astype(jnp.bfloat16))


def round_to_nearest(values: Float32[Array, "*shape"]) -> BFloat16[Array, "*shape"]:
    """Rounds to the nearest, ties to even, as ``astype`` does.

    It works on the bits: a conversion of rows just read from a table is moved by the TPU compiler
    before the reading, where it converts the whole table at every step.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    cut = jax.lax.bitcast_convert_type((rounded >> 16).astype(jnp.uint16), jnp.bfloat16)
    # The carry of a NaN's bits may reach its sign.
    return jnp.where(jnp.isnan(values), jnp.bfloat16(jnp.nan), cut)
