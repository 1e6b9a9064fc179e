"""Reading and writing rows of an array in place, whatever it is stored in.

While it is trained, a bfloat16 table is kept as its bits, in uint16. Where a backend has no such
scatter, the compiler would convert the whole table to float32 and back at every step, and a
bitcast of the whole table inside the step would be a copy of it too.
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
    array: Shaped[AnyArray, "rows *dim"],
    row_ids: Int[AnyArray, "*reads"],
    empty: Bool[AnyArray, "..."] | None = None,
) -> Shaped[Array, "..."]:
    """Rows of ``array``, [*reads, *dim], as floats; an out-of-range row reads as NaN.

    Of a float array it can be differentiated, in both modes. The gradient of a row is the sum over
    its readings; see ``runs`` for how a GPU adds them. On an explicit mesh the rows are split over
    devices as ``row_ids`` are, wherever the array lies.

    Args:
      array: As a train state or a model keeps it.
      row_ids: Rows to read.
      empty: Readings that give 0 in place of NaN where they are out of range, of a float array
        alone: [*reads] or what broadcasts to it, None for none.
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
    return _read_but_empty(array, row_ids, empty)


@_read.defjvp
def _read_tangent(primals, tangents):
    array, row_ids, empty = primals
    tangent = jax.lax.platform_dependent(
        tangents[0], row_ids, cuda=read_runs, rocm=read_runs, default=_read_each
    )
    return _read(array, row_ids, empty), tangent


# A program of its own, for jax_debug_nans looks at the result of each: no NaN is made and dropped.
@functools.partial(jax.jit, inline=True)
def _read_but_empty(array, row_ids, empty):
    rows = array.at[row_ids].get(mode="clip")
    otherwise = jnp.where(empty, 0, jnp.nan).astype(array.dtype)
    in_range, otherwise = (
        jnp.expand_dims(jnp.broadcast_to(each, row_ids.shape), range(row_ids.ndim, rows.ndim))
        for each in (row_ids < len(array), otherwise)
    )
    return jnp.where(in_range, rows, jnp.broadcast_to(otherwise, rows.shape))


def _read_each(array, row_ids):
    return jnp.take(array, row_ids, axis=0, mode="fill", fill_value=0.0)


def read_runs(
    array: Shaped[AnyArray, "rows *dim"], row_ids: Int[AnyArray, "*reads"]
) -> Shaped[Array, "..."]:
    """Rows of ``array``, [*reads, *dim], each read once; an out-of-range row reads as 0.

    The transpose adds along sorted runs of readings, and scatters one sum for each row.
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
