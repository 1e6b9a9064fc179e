"""Lookup and update of all spaces of a table, on one or many devices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deepfm_jax.distributed.partitioning import Placement
from deepfm_jax.embedding.layout import Space, TableLayout
from deepfm_jax.embedding.local import Arrays, LocalTable, RowUpdate, scaled
from deepfm_jax.embedding.row_gradients import create_scratch, needs_scratch
from deepfm_jax.embedding.sharded import ShardedTable
from deepfm_jax.embedding.table import Rows
from deepfm_jax.typing import Ids, PyTree


class TableAccess:
    """Looks up the rows of a batch, and updates them by their gradients.

    This is the only place that chooses between a table on one device and a striped table.
    """

    def __init__(self, layout: TableLayout, placement: Placement):
        """Creates the access to a table of ``layout`` that is placed by ``placement``.

        Raises:
          UserError: a space, padded to a multiple of the shards, exceeds int32.
        """
        self._layout = layout
        self._spaces = {
            _key(number): (space, _space_access(space, placement))
            for number, space in enumerate(layout.spaces)
        }

    def lookup(self, table: Arrays, ids: Ids) -> tuple[Rows, dict[str, Any]]:
        """The rows of a batch, and the route of each space, which ``update`` needs."""
        found, routes = {}, {}
        row_ids = self._layout.row_ids(ids)
        for (key, (space, access)), of_space in zip(self._spaces.items(), row_ids, strict=True):
            rows, routes[key] = access.lookup(_of(space, table), of_space)
            found.update(rows)
        return Rows(found), routes

    def update(
        self,
        update: RowUpdate,
        clip_norm: float,
        table: Arrays,
        row_state: Mapping[str, Any],
        scratch: Mapping[str, Any],
        routes: Mapping[str, Any],
        row_grads: Rows,
        dense_grads: PyTree,
    ) -> tuple[Arrays, Mapping[str, Any], Mapping[str, Any], PyTree]:
        """Updates the rows that a batch read.

        Args:
          update: How rows are updated.
          clip_norm: Maximum norm of all gradients together, penalties included; 0 for no clipping.
          table: Arrays as stored.
          row_state: State of the row optimizers, by array name.
          scratch: From ``create_scratches``.
          routes: From ``lookup``.
          row_grads: Gradients of the rows returned by ``lookup``.
          dense_grads: All other gradients, with penalties.

        Returns:
          The table, row state, scratch, and the other gradients after clipping.
        """
        scratch, summed = dict(scratch), {}
        for key, (space, access) in self._spaces.items():
            readings = {
                name: grad.reshape(-1, *grad.shape[2:])
                for name, grad in _of(space, row_grads.arrays).items()
            }
            # An empty tuple means no scratch.
            summed[key], own = access.summed(routes[key], scratch.get(key, ()), readings)
            scratch |= {key: own} if key in scratch else {}

        factor = None
        if clip_norm:
            square = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(dense_grads))
            for key, (space, access) in self._spaces.items():
                of_rows, own = access.square(
                    _of_space(update, space), _of(space, table), scratch.get(key, ()), summed[key]
                )
                square += of_rows
                scratch |= {key: own} if key in scratch else {}
            norm = jnp.sqrt(square)
            factor = jnp.where(norm < clip_norm, 1.0, clip_norm / norm)

        table, row_state = dict(table), dict(row_state)
        for key, (space, access) in self._spaces.items():
            moved, state, own = access.move(
                _of_space(update, space),
                _of(space, table),
                _of(space, row_state),
                scratch.get(key, ()),
                summed[key],
                factor,
            )
            table |= moved
            row_state |= state
            scratch |= {key: own} if key in scratch else {}
        return table, row_state, scratch, scaled(factor, dense_grads)


def create_scratches(layout: TableLayout, platform: str, table: Arrays) -> dict[str, jax.Array]:
    """The slot map's scratch of each space; empty if the platform sorts (see ``needs_scratch``)."""
    if not needs_scratch(platform):
        return {}
    return {
        _key(number): create_scratch(max(len(table[name]) for name in space.names))
        for number, space in enumerate(layout.spaces)
    }


def _key(number: int) -> str:
    return f"space_{number}"


def _space_access(space: Space, placement: Placement) -> LocalTable | ShardedTable:
    if placement.mesh.size == 1:
        return LocalTable(space.rows)
    return ShardedTable(space.rows, placement.mesh, placement.partitioning)


def _of(space: Space, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arrays[name] for name in space.names}


def _of_space(update: RowUpdate, space: Space) -> RowUpdate:
    frozen = {name: rows for name, rows in update.frozen.items() if name in space.names}
    return update.replace(frozen=frozen)  # pyright: ignore[reportAttributeAccessIssue]
