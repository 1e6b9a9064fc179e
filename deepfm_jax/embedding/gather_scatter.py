"""Reads and writes rows of an array in place, for every storage dtype.

During training, a bfloat16 table is stored as its bits in uint16. On a backend without a bfloat16
scatter, the compiler would convert the whole table to float32 and back at every step, and a bitcast
of the whole table inside the step would copy it as well.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from deepfm_jax.embedding.runs import run_starts, sort_by_row, spread_over_runs
from deepfm_jax.shardings import placed, sharding_like
from deepfm_jax.typing import AnyArray

_NAN_BITS = 0x7FC0


def to_stored(array: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """An array of the table as the train state stores it: bfloat16 as uint16, others unchanged."""
    if array.dtype == jnp.bfloat16:
        return jax.lax.bitcast_convert_type(array, jnp.uint16)
    return jnp.asarray(array)


def from_stored(array: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """The inverse of ``to_stored``."""
    if array.dtype == jnp.uint16:
        return jax.lax.bitcast_convert_type(array, jnp.bfloat16)
    return jnp.asarray(array)


def read(
    array: Shaped[AnyArray, "rows *dim"],
    row_ids: Int[AnyArray, "*reads"],
    empty: Bool[AnyArray, "..."] | None = None,
) -> Shaped[Array, "..."]:
    """Rows of ``array``, [*reads, *dim], as floats; an out-of-range row reads as NaN.

    The result is differentiable in both modes if the array is float. The gradient of a row is the
    sum over its readings; see ``runs`` for how a GPU adds them. On an explicit mesh the rows are
    sharded like ``row_ids``, regardless of the sharding of the array.

    Args:
      array: An array as a train state or a model stores it.
      row_ids: Rows to read.
      empty: Mask of readings that return 0 instead of NaN if they are out of range, for float
        arrays only: [*reads] or broadcastable to it, or None.
    """
    if array.dtype == jnp.uint16:
        bits = jnp.take(array, row_ids, axis=0, mode="fill", fill_value=_NAN_BITS)
        return from_stored(bits)
    array = jnp.asarray(array)
    sharding = sharding_like(row_ids.ndim + array.ndim - 1, row_ids, array)
    return placed(_read, sharding, array, row_ids, empty)


@jax.custom_jvp
def _read(array, row_ids, empty):
    if empty is None:
        return jnp.take(array, row_ids, axis=0, mode="fill", fill_value=jnp.nan)
    return _read_with_empty(array, row_ids, empty)


@_read.defjvp
def _read_tangent(primals, tangents):
    array, row_ids, empty = primals
    tangent = jax.lax.platform_dependent(
        tangents[0], row_ids, cuda=read_runs, rocm=read_runs, default=_read_each
    )
    return _read(array, row_ids, empty), tangent


# A separate program, because jax_debug_nans checks the result of each: it creates no unused NaN.
@functools.partial(jax.jit, inline=True)
def _read_with_empty(array, row_ids, empty):
    rows = array.at[row_ids].get(mode="clip")
    fill = jnp.where(empty, 0, jnp.nan).astype(array.dtype)
    in_range, fill = (
        jnp.expand_dims(jnp.broadcast_to(each, row_ids.shape), range(row_ids.ndim, rows.ndim))
        for each in (row_ids < len(array), fill)
    )
    return jnp.where(in_range, rows, jnp.broadcast_to(fill, rows.shape))


def _read_each(array, row_ids):
    return jnp.take(array, row_ids, axis=0, mode="fill", fill_value=0.0)


def read_runs(
    array: Shaped[AnyArray, "rows *dim"], row_ids: Int[AnyArray, "*reads"]
) -> Shaped[Array, "..."]:
    """Rows of ``array``, [*reads, *dim], each read once; an out-of-range row reads as 0.

    The transpose adds along sorted runs of readings, and scatters one sum per row.
    """
    array = jnp.asarray(array)
    ordered, order = sort_by_row(jnp.reshape(row_ids, -1))
    starts = run_starts(ordered)
    first_readings = jnp.where(starts, ordered, len(array))
    firsts = array.at[first_readings].get(mode="fill", fill_value=0, unique_indices=True)
    positions = jnp.arange(len(order), dtype=order.dtype)
    inverse = jnp.zeros_like(order).at[order].set(positions, unique_indices=True)
    rows = spread_over_runs(firsts, starts).at[inverse].get(unique_indices=True)
    return rows.reshape(*row_ids.shape, *array.shape[1:])


def write(
    array: Shaped[Array, "rows *dim"],
    row_ids: Int[Array, "occurrences"],
    rows: Shaped[Array, "occurrences *dim"],
    *,
    ascending: bool = False,
) -> Shaped[Array, "rows *dim"]:
    """``array`` with ``rows`` written at ``row_ids``, in place if it is donated.

    Ids of rows must be unique. Out-of-range ids may repeat, and write nothing. If ids are known to
    be ``ascending``, a TPU need not sort them to write arrays with one number per row.
    """
    if array.dtype == jnp.uint16:
        rows = to_stored(rows)
    return array.at[row_ids].set(
        rows, mode="drop", unique_indices=True, indices_are_sorted=ascending
    )
