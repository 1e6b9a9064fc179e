"""Lookup and update of a table that is split over many devices, by exchange of rows.

Without this, the compiler would gather the whole table, or if that is larger the rows of the whole
batch, onto every device. Here a device gets only the rows of its part of the batch: it sends ids to
the owners of their rows, receives the rows, and sends gradients to the same owners (see
``exchange``).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

from deepfm_jax.distributed.partitioning import (
    BATCH_SPEC,
    REPLICA_AXIS,
    SHARD_AXIS,
    TABLE_SPEC,
    Partitioning,
)
from deepfm_jax.embedding import exchange
from deepfm_jax.embedding.gather_scatter import read
from deepfm_jax.embedding.local import Arrays, RowUpdate, scaled, sum_by_row
from deepfm_jax.embedding.rounding import round_to_nearest
from deepfm_jax.embedding.runs import sum_runs
from deepfm_jax.embedding.stripes import striped_rows

_EVERYWHERE = PartitionSpec()


class ShardedTable:
    """Lookup and update of rows that are striped over the shards of a mesh.

    The results are those of ``LocalTable``, except that gradients are summed in another order.
    """

    def __init__(self, rows: int, mesh: Mesh, settings: Partitioning):
        """Creates the access to a table of V = ``rows`` rows on ``mesh``.

        Raises:
          UserError: V, padded to a multiple of the shards, exceeds int32.
        """
        self._rows = rows
        self._mesh = mesh
        self._settings = settings
        self.stripes = mesh.shape[SHARD_AXIS]
        self._length = striped_rows(rows, self.stripes) // self.stripes

    def lookup(
        self, table: Arrays, row_ids: Int[Array, "batch slots"]
    ) -> tuple[dict[str, jax.Array], Any]:
        """The rows of a batch by array name, and their route."""
        return self._mapped(self._lookup, (TABLE_SPEC, BATCH_SPEC), BATCH_SPEC)(
            dict(table), row_ids
        )

    def summed(self, route: Any, scratch: Any, row_grads: Arrays) -> tuple[Any, Any]:
        """The gradients of each row, summed on each device that read it; see ``LocalTable``.

        The sums of different devices are added when ``square`` and ``move`` exchange them.
        """
        grads = self._mapped(self._by_row, BATCH_SPEC, BATCH_SPEC)(route, dict(row_grads))
        return (route, grads), scratch

    def square(
        self, update: RowUpdate, table: Arrays, scratch: Any, summed: Any
    ) -> tuple[jax.Array, Any]:
        """The squared norm of all rows' gradients; see ``LocalTable.square``.

        The norm must be known before any row is updated, so clipping exchanges gradients twice.
        """
        update, frozen = _split_frozen(update)
        body = self._mapped(
            self._square,
            (_EVERYWHERE, TABLE_SPEC, TABLE_SPEC, TABLE_SPEC, BATCH_SPEC),
            (_EVERYWHERE, TABLE_SPEC),
        )
        return body(update, frozen, dict(table), scratch, summed)

    def move(
        self,
        update: RowUpdate,
        table: Arrays,
        row_state: Mapping[str, Any],
        scratch: Any,
        summed: Any,
        factor: jax.Array | None,
    ) -> tuple[Arrays, Mapping[str, Any], Any]:
        """Updates the rows that a batch read; see ``LocalTable.move``."""
        update, frozen = _split_frozen(update)
        factor = jnp.ones((), jnp.float32) if factor is None else factor
        body = self._mapped(
            self._move,
            (_EVERYWHERE, TABLE_SPEC, _EVERYWHERE, *(TABLE_SPEC,) * 3, BATCH_SPEC),
            (TABLE_SPEC, TABLE_SPEC, TABLE_SPEC),
        )
        return body(update, frozen, factor, dict(table), dict(row_state), scratch, summed)

    def _mapped(self, body, in_specs, out_specs):
        return jax.shard_map(
            body, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def _size(self, reads: int) -> int:
        return exchange.capacity(reads, self.stripes, self._settings.exchange_capacity)

    def _lookup(self, table, row_ids):
        shape, row_ids = row_ids.shape, row_ids.reshape(-1)
        route = exchange.plan(row_ids, self._rows, self.stripes)
        owner = exchange.owners(route)
        size = self._size(len(row_ids))
        found = {
            name: jnp.full((len(row_ids), *array.shape[1:]), jnp.nan, jnp.float32)
            for name, array in table.items()
        }

        def answer(round_, found):
            entry, here = exchange.answers(round_, route, owner)

            def filled(array, rows):
                sent = self._narrow(read(array, round_.requested))
                sent = sent.reshape(self.stripes, size, *array.shape[1:])
                received = exchange.to_owners(sent).reshape(-1, *array.shape[1:])[entry]
                known = here.reshape(-1, *(1,) * (received.ndim - 1))
                return jnp.where(known, received.astype(jnp.float32), rows)

            return {name: filled(table[name], rows) for name, rows in found.items()}

        found = exchange.in_rounds(route, size, self._length, found, answer)
        rows = {name: array.reshape(*shape, *array.shape[1:]) for name, array in found.items()}
        return rows, route

    def _by_row(self, route, grads):
        """Sums of a device's gradients over equal rows, in the order of ``Route.distinct``."""
        ordered = {name: grad[route.order] for name, grad in grads.items()}
        return sum_runs(ordered, route.place[route.order])

    def _gathered(self, round_, grads, scratch):
        """All devices' gradients of this shard's rows in a round, summed by row."""

        def receive(grad):
            sent = grad.at[round_.index].get(mode="clip")
            is_sent = round_.is_sent.reshape(*round_.is_sent.shape, *(1,) * (grad.ndim - 1))
            # Out-of-range readings are at the end, and their NaN is not sent.
            received = exchange.to_owners(self._narrow(jnp.where(is_sent, sent, 0.0)))
            return self._from_replicas(received.reshape(-1, *grad.shape[1:])).astype(jnp.float32)

        received = {name: receive(grad) for name, grad in grads.items()}
        return sum_by_row(self._from_replicas(round_.requested), scratch, received, self._length)

    def _square(self, update, frozen, table, scratch, summed):
        update, (route, grads) = update.replace(frozen=frozen), summed

        def add(round_, carry):
            square, scratch = carry
            touched, scratch = self._gathered(round_, grads, scratch)
            rows = jax.tree.leaves(update.decayed(table, touched))
            return square + sum(jnp.vdot(row, row) for row in rows), scratch

        zero = jnp.zeros((), jnp.float32)
        size = self._size(len(route.place))
        square, scratch = exchange.in_rounds(route, size, self._length, (zero, scratch), add)
        return jax.lax.psum(square, SHARD_AXIS), scratch

    def _move(self, update, frozen, factor, table, row_state, scratch, summed):
        route, grads = summed
        key = jax.random.fold_in(update.key, jax.lax.axis_index(SHARD_AXIS))
        update = update.replace(key=key, frozen=frozen)

        def move(round_, carry):
            table, row_state, scratch = carry
            touched, scratch = self._gathered(round_, grads, scratch)
            moved_by = scaled(factor, update.decayed(table, touched))
            table, row_state = update.moved(table, row_state, touched, moved_by)
            return table, row_state, scratch

        size = self._size(len(route.place))
        return exchange.in_rounds(route, size, self._length, (table, row_state, scratch), move)

    def _narrow(self, rows):
        """Rows in the dtype of the exchange; rows of a bfloat16 table lose nothing."""
        if self._settings.exchange_dtype == "float32" or rows.dtype == jnp.bfloat16:
            return rows
        return round_to_nearest(rows)

    def _from_replicas(self, rows):
        """The rows of all replicas, as every replica updates its copy by all gradients."""
        if self._mesh.shape[REPLICA_AXIS] == 1:
            return rows
        return jax.lax.all_gather(rows, REPLICA_AXIS, tiled=True)


def _split_frozen(update: RowUpdate) -> tuple[RowUpdate, dict[str, jax.Array]]:
    """The update, which is replicated, and its frozen rows, which are sharded like the table."""
    return update.replace(frozen={}), dict(update.frozen)  # pyright: ignore[reportAttributeAccessIssue]
