"""Sums the gradients of a batch's readings over equal rows.

A batch reads N = B S rows of the table, many of them more than once. Autodiff gives one gradient
per reading, but the table needs one per row. The sums are at the front of arrays with N entries, so
one compiled step serves any number of distinct rows.

There are two methods. The *slot map* writes each position into an int32[V] scratch at its row, and
reads the scratch back: the position found there, the last one written, becomes the *representative*
of all positions that read the row. This needs no sort, and its cost does not grow with V. CPUs use
it, because sorting N pairs there takes longer than the rest of the update. The *sort* adds along
sorted rows. It needs neither a scratch nor a scatter in nondeterministic order, and a TPU's
compiler adds no sort of its own. Accelerators use it.
"""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deepfm_jax.embedding.runs import run_starts, sort_by_row, sum_runs
from deepfm_jax.typing import PyTree

RowIds: TypeAlias = Int[Array, "occurrences"]


@flax.struct.dataclass
class RowGradients:
    """The distinct rows that a batch touches, and their gradients.

    Attributes:
      row_ids: The touched rows, padded with the out-of-range row V, [M] with M >= N.
      grads: Sums over the positions that read each row, padded with zeros, [M, ...].
      count: Number of touched rows, int32 scalar.
      chunk: Rows to update at a time, a divisor of M.
      ascending: Whether the rows are in ascending order.
    """

    row_ids: RowIds
    grads: PyTree
    count: Int[Array, ""]
    chunk: int = flax.struct.field(pytree_node=False)
    ascending: bool = flax.struct.field(pytree_node=False, default=False)


def needs_scratch(platform: str) -> bool:
    """Whether ``platform`` uses the slot map; the only place that chooses between the methods."""
    return platform == "cpu"


# Rows that a CPU updates at a time, so that their gradients and slots stay in its cache and the
# padding is not visited.
CPU_CHUNK = 8192


def create_scratch(rows: int) -> Int[Array, "rows"]:
    """The scratch of the slot map, with V entries whose initial values do not matter."""
    return jnp.zeros((rows,), jnp.int32)


def by_slot_map(
    scratch: Int[Array, "rows"], row_ids: RowIds
) -> tuple[Int[Array, "rows"], Int[Array, "occurrences"]]:
    """The representative of each position, [N], and the overwritten scratch.

    Args:
      scratch: See ``create_scratch``; it is copied unless donated.
      row_ids: Rows read, [N]. The representative of the out-of-range row V is in range but
        otherwise undefined.
    """
    positions = jnp.arange(row_ids.shape[0], dtype=jnp.int32)
    scratch = scratch.at[row_ids].set(positions, mode="drop")
    # Only entries that were just written are read, so the scratch is never cleared.
    return scratch, scratch.at[row_ids].get(mode="clip")


def sum_equal_rows(
    row_ids: RowIds,
    representatives: Int[Array, "occurrences"],
    grads: PyTree,
    rows: int,
    chunk: int | None = None,
) -> RowGradients:
    """Sums the gradients of positions with the same representative.

    Args:
      row_ids: Rows read, [N]; V for a reading without a row.
      representatives: See ``by_slot_map``.
      grads: Gradient of each reading, a pytree of [N, ...], float32.
      rows: V.
      chunk: Rows to update at a time; None for all at once.
    """
    count = row_ids.shape[0]
    chunk = count if chunk is None else min(chunk, count)
    length = -(-count // chunk) * chunk
    positions = jnp.arange(count, dtype=jnp.int32)
    is_row = row_ids < rows
    is_representative = (representatives == positions) & is_row
    place = jnp.cumsum(is_representative, dtype=jnp.int32) - 1
    # Out-of-range readings have no gradient: their NaN must not reach a row's sum.
    target = jnp.where(is_row, place[representatives], length)

    def total(grad):
        return jnp.zeros((length, *grad.shape[1:]), grad.dtype).at[target].add(grad, mode="drop")

    distinct = jnp.full(length, rows, jnp.int32)
    distinct = distinct.at[jnp.where(is_representative, place, length)].set(
        row_ids, mode="drop", unique_indices=True
    )
    return RowGradients(distinct, jax.tree.map(total, grads), place[-1] + 1, chunk)


def sum_sorted(row_ids: RowIds, grads: PyTree, rows: int) -> RowGradients:
    """Sums the gradients of positions that read the same row, after sorting positions by row.

    The rows are in ascending order, and each sum is taken in the order of the positions.

    Args:
      row_ids: Rows read, [N]; V for a reading without a row.
      grads: Gradient of each reading, a pytree of [N, ...], float32.
      rows: V.
    """
    count = row_ids.shape[0]
    ordered, order = sort_by_row(row_ids)
    starts = run_starts(ordered)
    places = jnp.cumsum(starts, dtype=jnp.int32) - 1
    touched = jnp.sum(starts & (ordered < rows), dtype=jnp.int32)
    sums = sum_runs(jax.tree.map(lambda grad: grad[order], grads), places)

    def of_rows(total):
        # Out-of-range readings form the last run, and have no gradient.
        is_row = (jnp.arange(count) < touched).reshape(-1, *(1,) * (total.ndim - 1))
        return jnp.where(is_row, total, 0.0)

    distinct = jnp.full(count, rows, jnp.int32).at[places].set(ordered, indices_are_sorted=True)
    return RowGradients(
        row_ids=distinct,
        grads=jax.tree.map(of_rows, sums),
        count=touched,
        chunk=count,
        ascending=True,
    )
