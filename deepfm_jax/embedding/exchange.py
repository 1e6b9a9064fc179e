"""The exchange of rows between shards, in rounds of a fixed size.

Every device sorts the distinct rows that its part of the batch reads by owner and row. In each
round it sends the next rows, at most C, to each owner, so array shapes do not depend on the ids.
One round is usually enough. If it is not (skewed or adversarial ids), all devices agree on the last
row of each owner to exchange in this round. Everything about a row is then sent in the same round,
and its owner can update it once, by the sum.

These functions run inside ``jax.shard_map``, on one device's part of the arrays.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from deepfm_jax.distributed.partitioning import REPLICA_AXIS, SHARD_AXIS
from deepfm_jax.embedding.stripes import striped_rows
from deepfm_jax.typing import PyTree

RowIds: TypeAlias = Int[Array, "occurrences"]
Reading: TypeAlias = Bool[Array, "occurrences"]


@flax.struct.dataclass
class Route:
    """The distinct rows that a device reads, sorted by owner and row.

    Attributes:
      distinct: Positions of the rows in the striped table (see ``stripes``), ascending, [N]. The
        rest is filled with the number of positions, which is out of range.
      place: Index in ``distinct`` of each reading, [N].
      order: Readings sorted by ``place``, [N].
      bounds: Index in ``distinct`` where each owner's rows begin, then the end, [n + 1].
    """

    distinct: RowIds
    place: RowIds
    order: RowIds
    bounds: Int[Array, "owners"]


@flax.struct.dataclass
class Round:
    """What a device sends and receives in one round.

    Attributes:
      index: Index in ``Route.distinct`` of each row to send, [n, C].
      is_sent: Mask of the entries that are sent, [n, C].
      requested: Rows that the devices request from this one, local to its shard, [n C]; L where an
        entry is unused.
      first: Index in ``Route.distinct`` of the first row sent to each owner, [n].
      stop: Index of the first row after those sent, [n].
    """

    index: Int[Array, "owners capacity"]
    is_sent: Bool[Array, "owners capacity"]
    requested: RowIds
    first: Int[Array, "owners"]
    stop: Int[Array, "owners"]


def capacity(reads: int, shards: int, factor: float) -> int:
    """C: the number of rows that a device can send to another in a round.

    Args:
      reads: N, the number of rows that the device reads.
      shards: n.
      factor: Multiple of the mean N / n. Four standard deviations of a uniform spread are added.
    """
    mean = factor * reads / shards
    room = mean + 4 * math.sqrt(mean)
    return min(reads, -(-math.ceil(room) // 8) * 8)


def plan(row_ids: RowIds, rows: int, shards: int) -> Route:
    """The route of the rows that a device reads; the out-of-range row V has no owner."""
    length = striped_rows(rows, shards) // shards
    none = shards * length
    positions = jnp.where(row_ids < rows, (row_ids % shards) * length + row_ids // shards, none)
    readings = jnp.arange(len(row_ids), dtype=jnp.int32)
    ordered, order = jax.lax.sort((positions, readings), num_keys=1, is_stable=False)
    starts = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    place = jnp.cumsum(starts, dtype=jnp.int32) - 1
    distinct = jnp.full(len(row_ids), none, jnp.int32)
    distinct = distinct.at[place].set(ordered, indices_are_sorted=True)
    edges = jnp.arange(shards + 1, dtype=jnp.int32) * length
    return Route(
        distinct=distinct,
        place=jnp.zeros_like(place).at[order].set(place, unique_indices=True),
        order=order,
        bounds=jnp.searchsorted(distinct, edges).astype(jnp.int32),
    )


def owners(route: Route) -> RowIds:
    """The owner of each reading, [N]; n for an out-of-range row."""
    return jnp.searchsorted(route.bounds[1:], route.place, side="right").astype(jnp.int32)


def in_rounds(
    route: Route, size: int, length: int, carry: PyTree, body: Callable[[Round, Any], PyTree]
) -> PyTree:
    """Applies ``body(round, carry)`` in rounds until all rows have been sent; returns ``carry``.

    Every device runs the same number of rounds.

    Args:
      route: See ``plan``.
      size: C.
      length: L, the number of rows of a shard.
      carry: Pytree of arrays.
      body: Runs once per round.
    """
    shards = len(route.bounds) - 1
    ends = route.bounds[1:]
    edges = jnp.arange(shards, dtype=jnp.int32) * length

    def one_round(loop):
        first, _, carry = loop
        following = route.distinct[jnp.minimum(first + size, len(route.distinct) - 1)]
        limit = jnp.where(first + size < ends, following, edges + length)
        limit = jax.lax.pmin(limit, (REPLICA_AXIS, SHARD_AXIS))
        stop = jnp.searchsorted(route.distinct, limit).astype(jnp.int32)
        index = first[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]
        is_sent = index < stop[:, None]
        rows = jnp.where(is_sent, _at(route.distinct, index) - edges[:, None], length)
        requested = to_owners(rows).reshape(-1)
        carry = body(Round(index, is_sent, requested, first, stop), carry)
        return stop, jnp.any(limit < edges + length), carry

    def unfinished(loop):
        return loop[1]

    start = (route.bounds[:-1], jnp.asarray(True), carry)
    return jax.lax.while_loop(unfinished, one_round, start)[2]


def to_owners(blocks: jax.Array) -> jax.Array:
    """Sends block i of [n, ...] to device i of the shard axis; this is its own inverse."""
    return jax.lax.all_to_all(blocks, SHARD_AXIS, split_axis=0, concat_axis=0, tiled=True)


def answers(round_: Round, route: Route, owner: RowIds) -> tuple[RowIds, Reading]:
    """The index of each reading's answer among a round's answers [n C], and whether it has one."""
    size = round_.index.shape[1]
    known = jnp.minimum(owner, len(round_.first) - 1)
    first = round_.first[known]
    here = (owner == known) & (route.place >= first) & (route.place < round_.stop[known])
    return jnp.where(here, known * size + route.place - first, 0), here


def _at(array: jax.Array, index: jax.Array) -> jax.Array:
    return array.at[index].get(mode="clip")
