"""Lookup and update of a batch's rows in a table on one device."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from deepfm_jax.embedding.gather_scatter import read
from deepfm_jax.embedding.layout import kind_of
from deepfm_jax.embedding.row_gradients import (
    CPU_CHUNK,
    RowGradients,
    by_slot_map,
    sum_equal_rows,
    sum_sorted,
)
from deepfm_jax.embedding.row_optimizers import RowOptimizer
from deepfm_jax.embedding.table import read_rows
from deepfm_jax.typing import PyTree

# Arrays of a table, or of its gradients, by name.
Arrays: TypeAlias = Mapping[str, jax.Array]


@flax.struct.dataclass
class RowUpdate:
    """How a step updates the touched rows.

    Attributes:
      step: Number of steps before this one, int32 scalar.
      scale: Factor on the learning rate, float32 scalar.
      key: Random key, for tables in bfloat16.
      optimizers: The optimizers of ``first_order`` and ``embedding``.
      decay: ``(weights, gradients) -> gradients`` of touched rows, with penalties added.
      frozen: Masks bool[V] of rows that must not change, by array name; sharded like the table.
    """

    step: Int[Array, ""]
    scale: jax.Array
    key: jax.Array
    optimizers: Mapping[str, RowOptimizer] = flax.struct.field(pytree_node=False)
    decay: Callable[[PyTree, PyTree], PyTree] = flax.struct.field(pytree_node=False)
    frozen: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)

    def decayed(self, table: Arrays, touched: RowGradients) -> Arrays:
        """Gradients of the touched rows with penalties added; 0 for frozen rows."""
        grads = dict(self.decay(_weights(table, touched), touched.grads))
        for name, frozen in self.frozen.items():
            grads[name] = jnp.where(_is_frozen(frozen, touched)[:, None], 0.0, grads[name])
        return grads

    def moved(
        self, table: Arrays, row_state: Mapping[str, Any], touched: RowGradients, grads: Arrays
    ) -> tuple[dict[str, jax.Array], dict[str, Any]]:
        """Table and row state after updating the touched rows by ``grads``; in place if donated."""
        new_table, new_state = dict(table), dict(row_state)
        for name in table:
            rows = touched
            if name in self.frozen:  # Frozen rows become out-of-range ids, which write nothing.
                frozen = self.frozen[name]
                row_ids = jnp.where(_is_frozen(frozen, touched), len(frozen), touched.row_ids)
                rows = touched.replace(row_ids=row_ids, ascending=False)  # pyright: ignore[reportAttributeAccessIssue]
            new_table[name], new_state[name] = self.optimizers[kind_of(name)].update(
                table[name],
                row_state[name],
                rows.replace(grads=grads[name]),  # pyright: ignore[reportAttributeAccessIssue]
                self.step,
                self.scale,
                jax.random.fold_in(self.key, zlib.crc32(name.encode())),
            )
        return new_table, new_state


def sum_by_row(
    row_ids: Int[Array, "occurrences"], scratch: Any, grads: Arrays, rows: int
) -> tuple[RowGradients, Any]:
    """The gradients of each touched row, and the scratch, which is overwritten if present.

    Args:
      row_ids: Rows read, [N]; ``rows`` for a reading without a row.
      scratch: Scratch of the slot map; an empty tuple selects the sort (see ``needs_scratch``).
      grads: Gradient of each reading, [N, ...], by array name.
      rows: Number of rows of the table.
    """
    if isinstance(scratch, tuple):
        return sum_sorted(row_ids, grads, rows), scratch
    scratch, representatives = by_slot_map(scratch, row_ids)
    return sum_equal_rows(row_ids, representatives, grads, rows, CPU_CHUNK), scratch


class LocalTable:
    """Lookup and update of one space on a single device."""

    stripes = 1

    def __init__(self, rows: int):
        """Creates the access to arrays of V = ``rows`` rows."""
        self._rows = rows

    def lookup(
        self, table: Arrays, row_ids: Int[Array, "batch slots"]
    ) -> tuple[dict[str, jax.Array], Any]:
        """The rows of a batch by array name, and the route that ``summed`` needs."""
        return read_rows(table, row_ids), row_ids.reshape(-1)

    def summed(self, route: Any, scratch: Any, row_grads: Arrays) -> tuple[Any, Any]:
        """The gradients of each row, summed over its readings, and the scratch.

        Args:
          route: From ``lookup``.
          scratch: See ``sum_by_row``.
          row_grads: Gradient of each reading, [N, ...], by array name.
        """
        return sum_by_row(route, scratch, row_grads, self._rows)

    def square(
        self, update: RowUpdate, table: Arrays, scratch: Any, summed: Any
    ) -> tuple[jax.Array, Any]:
        """The squared norm of all rows' gradients, penalties included, and the scratch."""
        return _square(update.decayed(table, summed)), scratch

    def move(
        self,
        update: RowUpdate,
        table: Arrays,
        row_state: Mapping[str, Any],
        scratch: Any,
        summed: Any,
        factor: jax.Array | None,
    ) -> tuple[Arrays, Mapping[str, Any], Any]:
        """Updates the rows that a batch read; ``factor``, unless None, scales their gradients."""
        grads = scaled(factor, update.decayed(table, summed))
        table, row_state = update.moved(table, row_state, summed, grads)
        return table, row_state, scratch


def _square(grads: Arrays) -> jax.Array:
    return sum((jnp.vdot(grad, grad) for grad in grads.values()), jnp.zeros((), jnp.float32))


def scaled(factor: jax.Array | None, grads: PyTree) -> PyTree:
    """Gradients times a factor; unchanged if the factor is None."""
    return grads if factor is None else jax.tree.map(lambda grad: factor * grad, grads)


def _is_frozen(frozen: jax.Array, touched: RowGradients) -> jax.Array:
    """A mask of the touched rows that are frozen."""
    return frozen.at[touched.row_ids].get(mode="fill", fill_value=False)


def _weights(table: Arrays, touched: RowGradients) -> dict[str, jax.Array]:
    """The weights of the touched rows; 0 for out-of-range rows, which norms must not count.

    The compiler removes this computation if no penalty uses it.
    """

    def weights(array):
        rows = read(array, touched.row_ids).astype(jnp.float32)
        # The rows of some fields may have no vectors; ids after the touched rows are V.
        in_range = touched.row_ids < len(array)
        return jnp.where(in_range.reshape(-1, *(1,) * (rows.ndim - 1)), rows, 0.0)

    return {name: weights(array) for name, array in table.items()}
