"""Gradients by occurrence to gradients by row: the sums over equal rows of a batch.

A batch reads N = B S rows of the table, many of them more than once. Autodiff gives a gradient for
each reading; the table needs one for each row. The sums stand at the front of arrays that keep N
entries, so that one compiled step serves any number of distinct rows.

Two roads lead to them. The *slot map* writes each position into an int32[V] scratch at its row, and
reads back who came last: that one among the positions that read a row stands for it, its
*representative*. No sort, and a cost that does not grow with V: it is what a CPU wants, where
sorting N pairs takes longer than the rest of the update. The *sort* needs no scratch and no
scattered writes in an order left to chance, and adds along sorted rows, for which a TPU's compiler
needs no sort of its own; accelerators get it.
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
    """What a batch asks of the table: the touched rows, each once, and their gradients.

    Attributes:
      row_ids: The touched rows, and after them V, which is no row, [M] with M >= N.
      grads: Sums over the positions that read each of them, [M, ...]; zero after them.
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
    """Whether ``platform`` takes the slot map; the one place that chooses between the roads."""
    return platform == "cpu"


# Rows that a CPU updates at a time: their gradients and slots then stay in its cache, and rows that
# no batch has are not visited.
CPU_CHUNK = 8192


def create_scratch(rows: int) -> Int[Array, "rows"]:
    """The slot map's scratch, V entries; what stands in it never matters."""
    return jnp.zeros((rows,), jnp.int32)


def by_slot_map(
    scratch: Int[Array, "rows"], row_ids: RowIds
) -> tuple[Int[Array, "rows"], Int[Array, "occurrences"]]:
    """The representative of each position, [N], and the scratch, written over.

    Args:
      scratch: See ``create_scratch``; donate it, or it is copied.
      row_ids: Rows read, [N]. Row V, which is no row, is given a representative that is in range
        and otherwise undefined.
    """
    positions = jnp.arange(row_ids.shape[0], dtype=jnp.int32)
    scratch = scratch.at[row_ids].set(positions, mode="drop")
    # An entry that no position has just written cannot be read, so the scratch is never cleared.
    return scratch, scratch.at[row_ids].get(mode="clip")


def sum_equal_rows(
    row_ids: RowIds,
    representatives: Int[Array, "occurrences"],
    grads: PyTree,
    rows: int,
    chunk: int | None = None,
) -> RowGradients:
    """Sums the gradients of positions that have one representative.

    Args:
      row_ids: Rows read, [N]; V for none.
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
    stands = (representatives == positions) & is_row
    place = jnp.cumsum(stands, dtype=jnp.int32) - 1
    # Readings of no row have no gradient to give: their NaN must not reach a row's sum.
    target = jnp.where(is_row, place[representatives], length)

    def total(grad):
        return jnp.zeros((length, *grad.shape[1:]), grad.dtype).at[target].add(grad, mode="drop")

    distinct = jnp.full(length, rows, jnp.int32)
    distinct = distinct.at[jnp.where(stands, place, length)].set(
        row_ids, mode="drop", unique_indices=True
    )
    return RowGradients(distinct, jax.tree.map(total, grads), place[-1] + 1, chunk)


def sum_sorted(row_ids: RowIds, grads: PyTree, rows: int) -> RowGradients:
    """Sums the gradients of positions that read one row, over the positions sorted by row.

    The rows come in ascending order, and each sum is taken in the order of the positions.

    Args:
      row_ids: Rows read, [N]; V for none.
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
        # Readings of no row are the last run, and have no gradient to give.
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
