"""The exchange of rows between shards: who asks whom for what, in rounds of a fixed size.

Every device sorts the rows that its part of the batch reads by owner and row, each once. In a round
it sends to each owner the next of them, at most C: arrays have one shape, whatever the ids. As
a rule one round is enough. Where it is not (skewed or adversarial ids), all devices agree on the
rows up to which each owner is served in this round, so that everything that is said about a row is
said in one round: an owner can then move it once, by the sum.

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
    """The rows that a device reads, sorted by owner and row, each once.

    Attributes:
      distinct: Positions of the rows in the striped table (see ``stripes``), ascending, [N]; then
        the number of all positions, which is out of range.
      place: Where in ``distinct`` each reading stands, [N].
      order: Readings sorted by ``place``, [N].
      bounds: Where in ``distinct`` each owner's rows begin, [n + 1], the last one their end.
    """

    distinct: RowIds
    place: RowIds
    order: RowIds
    bounds: Int[Array, "owners"]


@flax.struct.dataclass
class Round:
    """What is sent in one round.

    Attributes:
      index: Where in ``Route.distinct`` the rows sent stand, [n, C].
      sends: Which of them are sent at all, [n, C].
      asked: The rows that each device asks of this one, local to this shard, [n C]; L for none.
      first: The first row of each owner that is sent, [n].
      stop: The first that is not, [n].
    """

    index: Int[Array, "owners capacity"]
    sends: Bool[Array, "owners capacity"]
    asked: RowIds
    first: Int[Array, "owners"]
    stop: Int[Array, "owners"]


def capacity(reads: int, shards: int, factor: float) -> int:
    """C: rows that a device can send to another in a round.

    Args:
      reads: N, rows that the device reads.
      shards: n.
      factor: Of the mean N / n; four standard deviations of a fair spread are added to it.
    """
    mean = factor * reads / shards
    room = mean + 4 * math.sqrt(mean)
    return min(reads, -(-math.ceil(room) // 8) * 8)


def plan(row_ids: RowIds, rows: int, shards: int) -> Route:
    """The route of the rows that a device reads; V, which is no row, has no owner."""
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
    """The owner of each reading, [N]; n for none."""
    return jnp.searchsorted(route.bounds[1:], route.place, side="right").astype(jnp.int32)


def in_rounds(
    route: Route, size: int, length: int, carry: PyTree, body: Callable[[Round, Any], PyTree]
) -> PyTree:
    """``carry`` after ``body(round, carry)`` for each round, until all rows have been sent.

    Every device goes through the same number of rounds.

    Args:
      route: See ``plan``.
      size: C.
      length: L, rows of a shard.
      carry: Pytree of arrays.
      body: Runs once a round.
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
        sends = index < stop[:, None]
        rows = jnp.where(sends, _at(route.distinct, index) - edges[:, None], length)
        asked = to_owners(rows).reshape(-1)
        carry = body(Round(index, sends, asked, first, stop), carry)
        return stop, jnp.any(limit < edges + length), carry

    def unfinished(loop):
        return loop[1]

    start = (route.bounds[:-1], jnp.asarray(True), carry)
    return jax.lax.while_loop(unfinished, one_round, start)[2]


def to_owners(blocks: jax.Array) -> jax.Array:
    """Block i of [n, ...] to device i of the shard axis; its own inverse."""
    return jax.lax.all_to_all(blocks, SHARD_AXIS, split_axis=0, concat_axis=0, tiled=True)


def answers(round_: Round, route: Route, owner: RowIds) -> tuple[RowIds, Reading]:
    """Which entry of a round's answers, [n C], is each reading's, and whether there is one."""
    size = round_.index.shape[1]
    known = jnp.minimum(owner, len(round_.first) - 1)
    first = round_.first[known]
    here = (owner == known) & (route.place >= first) & (route.place < round_.stop[known])
    return jnp.where(here, known * size + route.place - first, 0), here


def _at(array: jax.Array, index: jax.Array) -> jax.Array:
    return array.at[index].get(mode="clip")
