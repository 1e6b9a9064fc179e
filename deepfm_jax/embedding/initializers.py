"""Initial values of a table's vectors, drawn in place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from deepfm_jax.embedding.stripes import rows_of_positions

# The multipliers of MurmurHash3's 32-bit finaliser.
_MULTIPLIERS = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))


def normal_by_position(std: float, rows: int, stripes: int = 1) -> nn.initializers.Initializer:
    """A normal initialiser of [V, D] in which each number is a function of its row and column.

    ``jax.random.normal`` needs several arrays of random bits in addition to its result, which for a
    table is more than the memory that training leaves free. Here each number is a hash of the key,
    its row and its column. The compiler fuses this into one loop that needs no memory except for
    the result, and each device runs it over its own rows. The numbers do not depend on how rows are
    split.

    Args:
      std: Standard deviation.
      rows: V.
      stripes: Shards over which rows are striped; positions without a row are 0.
    """

    def init(key, shape, dtype):
        words = jax.random.bits(key, (2,), jnp.uint32)
        row = jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
        if stripes > 1:
            row = rows_of_positions(row, rows, stripes)
        columns = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
        # Mixed twice, so that a column is not a fixed permutation of another column's numbers.
        bits = _mixed(_mixed(row ^ words[0]) ^ _mixed(columns + words[1]))
        bits = _mixed(bits + words[0])
        # A float32 represents 23 bits and a half exactly. Without the half, a draw could be 0, for
        # which the normal is infinite.
        uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * np.float32(2.0**-23)
        normal = np.float32(np.sqrt(2)) * jax.lax.erf_inv(2 * uniform - 1)
        numbers = std * normal
        if stripes > 1:
            numbers = jnp.where(row < rows, numbers, 0.0)
        return numbers.astype(dtype)

    return init


def _mixed(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32 bits in which each input bit affects each output bit."""
    first, second = _MULTIPLIERS
    bits = (bits ^ (bits >> 16)) * first
    bits = (bits ^ (bits >> 13)) * second
    return bits ^ (bits >> 16)
