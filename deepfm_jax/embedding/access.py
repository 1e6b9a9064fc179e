"""Reading and writing rows of an array in place, whatever it is stored in.

While it is trained, a bfloat16 table is kept as its bits, in uint16. Where a backend has no such
scatter, the compiler would convert the whole table to float32 and back at every step, and a
bitcast of the whole table inside the step would be a copy of it too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from deepfm_jax.typing import AnyArray

_NAN_BITS = 0x7FC0


def to_stored(array: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """An array of the table as a train state keeps it: bfloat16 as uint16, others as they are."""
    if array.dtype == jnp.bfloat16:
        return jax.lax.bitcast_convert_type(array, jnp.uint16)
    return jnp.asarray(array)


def from_stored(array: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """The inverse of ``to_stored``."""
    if array.dtype == jnp.uint16:
        return jax.lax.bitcast_convert_type(array, jnp.bfloat16)
    return jnp.asarray(array)


def read(
    array: Shaped[AnyArray, "rows *dim"], row_ids: Int[Array, "*reads"]
) -> Shaped[Array, "..."]:
    """Rows of ``array``, [*reads, *dim], as floats; NaN for an id that is no row."""
    nan = _NAN_BITS if array.dtype == jnp.uint16 else jnp.nan
    return from_stored(jnp.take(array, row_ids, axis=0, mode="fill", fill_value=nan))


def write(
    array: Shaped[Array, "rows *dim"],
    row_ids: Int[Array, "occurrences"],
    rows: Shaped[Array, "occurrences *dim"],
    *,
    ascending: bool = False,
) -> Shaped[Array, "rows *dim"]:
    """``array`` with ``rows`` written at ``row_ids``, in place where it is donated.

    A row's id stands there once; an id that is no row, perhaps often, and it writes nothing.
    Where ids are known to be ``ascending``, a TPU need not sort them to write arrays of one number
    a row.
    """
    if array.dtype == jnp.uint16:
        rows = to_stored(rows)
    return array.at[row_ids].set(
        rows, mode="drop", unique_indices=True, indices_are_sorted=ascending
    )
