"""Striping of a table's rows over shards: row r is on shard r mod n.

Fields are consecutive in the table, and ids of frequent values are small, so a shard of consecutive
rows would serve most of a batch. Striping spreads a batch over all shards.

An array of V rows is padded to n L rows, L = ceil(V / n). Row r is at (r mod n) L + floor(r / n),
so the rows of each shard are consecutive, and JAX can split the array evenly. The n L - V rows of
padding are 0 and stay 0.
"""

import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32

from deepfm_jax.errors import UserError
from deepfm_jax.typing import AnyArray

Positions: TypeAlias = UInt32[Array, "..."]


def striped_rows(rows: int, stripes: int) -> int:
    """The number n L of rows that an array of ``rows`` rows takes on ``stripes`` shards.

    Raises:
      UserError: n L exceeds int32.
    """
    total = -(-rows // stripes) * stripes
    if total >= 2**31:
        raise UserError(
            f"a table of {rows} rows on {stripes} shards takes {total} rows; int32 reaches "
            f"{2**31 - 1}: raise min_count"
        )
    return total


def rows_of_positions(positions: Positions, rows: int, stripes: int) -> Positions:
    """The row at each position of a striped array; V or more for padding."""
    length = striped_rows(rows, stripes) // stripes
    return (positions % length) * stripes + positions // length


def stripes_of(array: Any) -> int:
    """Number of shards of the rows of an array, or of a shape struct with a sharding."""
    return array.shape[0] // array.sharding.shard_shape(array.shape)[0]


@functools.partial(jax.jit, static_argnames=("old", "new", "rows"))
def restripe(
    array: Shaped[AnyArray, "rows *dim"], old: int, new: int, rows: int
) -> Shaped[Array, "rows_out *dim"]:
    """Restripes an array from ``old`` to ``new`` shards.

    Args:
      array: [old L, ...]; may be followed by rows that belong to no shard.
      old: Number of stripes of the array.
      new: Number of stripes of the result.
      rows: Rows of the result, a multiple of ``new`` that is at least V.
    """
    dim = array.shape[1:]
    length = array.shape[0] // old
    ordered = array[: old * length].reshape(old, length, *dim).swapaxes(0, 1)
    ordered = ordered.reshape(old * length, *dim)[:rows]
    filled = jnp.pad(ordered, ((0, rows - len(ordered)), *((0, 0) for _ in dim)))
    return filled.reshape(rows // new, new, *dim).swapaxes(0, 1).reshape(rows, *dim)
