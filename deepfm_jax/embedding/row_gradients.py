"""Gradients by occurrence to gradients by row: the sums over equal rows of a batch.

A batch reads N = B S rows of the table, many of them more than once. Autodiff gives a gradient for
each reading; the table needs one for each row. One position among those that read a row stands
for it, its *representative*; the sums gather there, and every other position is told to drop out.
All arrays keep the length N, so the compiled step does not depend on how many rows are distinct.

Two roads lead to the representatives. The *slot map* writes each position into an int32[V] scratch
at its row, and reads back who came last: no sort, and a cost that does not grow with V. It is what
a CPU wants, where sorting N pairs takes longer than the rest of the update. The *sort* needs no
scratch and no scattered writes in an order left to chance; accelerators get it.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deepfm_jax.typing import PyTree

RowIds: TypeAlias = Int[Array, "occurrences"]


class RowGradients(NamedTuple):
    """What a batch asks of the table, each touched row once.

    Attributes:
      row_ids: The row, at its representative position, [N]; V, which is no row, everywhere else.
      grads: Sums over the positions that read the row, [N, ...]; zero at all others.
    """

    row_ids: RowIds
    grads: PyTree


def needs_scratch(platform: str) -> bool:
    """Whether ``platform`` takes the slot map; the one place that chooses between the roads."""
    return platform == "cpu"


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


def by_sort(row_ids: RowIds) -> Int[Array, "occurrences"]:
    """The representative of each position, [N]: the first that reads the same row."""
    count = row_ids.shape[0]
    positions = jnp.arange(count, dtype=jnp.int32)
    ordered, origin = jax.lax.sort((row_ids, positions), num_keys=1, is_stable=True)
    starts = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    run_start = jax.lax.cummax(jnp.where(starts, positions, 0))
    return jnp.zeros(count, jnp.int32).at[origin].set(origin[run_start], unique_indices=True)


def sum_equal_rows(
    row_ids: RowIds, representatives: Int[Array, "occurrences"], grads: PyTree, rows: int
) -> RowGradients:
    """Sums the gradients of positions that have one representative.

    Args:
      row_ids: Rows read, [N]; V for none.
      representatives: See ``by_slot_map`` and ``by_sort``.
      grads: Gradient of each reading, a pytree of [N, ...], float32.
      rows: V.
    """
    positions = jnp.arange(row_ids.shape[0], dtype=jnp.int32)
    stands = (representatives == positions) & (row_ids < rows)
    # Readings of no row have no gradient to give: their NaN must not reach a row's sum.
    target = jnp.where(row_ids < rows, representatives, row_ids.shape[0])

    def total(grad):
        return jnp.zeros_like(grad).at[target].add(grad, mode="drop")

    return RowGradients(jnp.where(stands, row_ids, rows), jax.tree.map(total, grads))
