"""How the rows of a table lie on several shards: striped, row r on shard r mod n.

Fields stand one after another in the table, and ids of frequent values are small, so a shard that
held consecutive rows would serve most of a batch. Striped rows spread it over all.

An array of V rows becomes n L rows, L = ceil(V / n): row r stands at (r mod n) L + floor(r / n), so
that each shard's rows are consecutive and JAX can split the array evenly. The n L - V rows that
fill it up are 0 and stay 0.
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
    """N L, the rows that an array of ``rows`` has on ``stripes`` shards.

    Raises:
      UserError: more than int32 ids reach.
    """
    total = -(-rows // stripes) * stripes
    if total >= 2**31:
        raise UserError(
            f"a table of {rows} rows on {stripes} shards takes {total} rows; int32 reaches "
            f"{2**31 - 1}: raise min_count"
        )
    return total


def rows_of_positions(positions: Positions, rows: int, stripes: int) -> Positions:
    """The row that stands at each position of a striped array; V or more where none does."""
    length = striped_rows(rows, stripes) // stripes
    return (positions % length) * stripes + positions // length


def stripes_of(array: Any) -> int:
    """Shards over which the rows of an array, or of the shape of one with a sharding, lie."""
    return array.shape[0] // array.sharding.shard_shape(array.shape)[0]


@functools.partial(jax.jit, static_argnames=("old", "new", "rows"))
def restripe(
    array: Shaped[AnyArray, "rows *dim"], old: int, new: int, rows: int
) -> Shaped[Array, "rows_out *dim"]:
    """An array striped over ``old`` shards, as it is striped over ``new``.

    Args:
      array: [old L, ...]; rows may follow that no shard has.
      old: Stripes that it has.
      new: Stripes that it gets.
      rows: Rows of the result, a multiple of ``new`` that is at least V.
    """
    dim = array.shape[1:]
    length = array.shape[0] // old
    ordered = array[: old * length].reshape(old, length, *dim).swapaxes(0, 1)
    ordered = ordered.reshape(old * length, *dim)[:rows]
    filled = jnp.pad(ordered, ((0, rows - len(ordered)), *((0, 0) for _ in dim)))
    return filled.reshape(rows // new, new, *dim).swapaxes(0, 1).reshape(rows, *dim)
