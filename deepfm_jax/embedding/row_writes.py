"""Writes rows from the host into an array of a table, whatever its sharding."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from deepfm_jax.distributed.partitioning import SHARD_AXIS, TABLE_SPEC

# Rows sent to the devices at a time; with 16 numbers each they take 4 MiB.
_CHUNK = 1 << 16


def write_rows(
    array: jax.Array, row_ids: np.ndarray, rows: np.ndarray, mesh: Mesh, *, striped: bool
) -> jax.Array:
    """The array, which is donated, with some of its rows replaced.

    Each device receives all new rows in chunks, and writes the rows that it holds.

    Args:
      array: Array of a table, [V, ...], laid out on ``mesh``.
      row_ids: Distinct rows of the table, [N]; the same in every process.
      rows: Their new values, [N, ...]; rounded to nearest in the array's dtype.
      mesh: Devices.
      striped: Whether rows are striped over the mesh's shards (see ``embedding.stripes``).
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def sent(part: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(part.shape, everywhere, lambda index: part[index])

    for ids, part in _chunks(row_ids.astype(np.int32), rows):
        array = _written(array, sent(ids), sent(part), mesh=mesh, striped=striped)
    return array


def _chunks(row_ids: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields chunks of one size, for one compiled program; the last is padded with row id -1."""
    size = min(_CHUNK, len(row_ids))
    for start in range(0, len(row_ids), size or 1):
        ids, part = row_ids[start : start + size], rows[start : start + size]
        missing = size - len(ids)
        ids = np.pad(ids, (0, missing), constant_values=-1)
        yield ids, np.pad(part, ((0, missing), *((0, 0),) * (part.ndim - 1)))


@functools.partial(jax.jit, static_argnames=("mesh", "striped"), donate_argnames=("array",))
def _written(
    array: Shaped[Array, "rows *dim"],
    row_ids: Int[Array, "count"],
    rows: Shaped[Array, "count *dim"],
    *,
    mesh: Mesh,
    striped: bool,
) -> Shaped[Array, "rows *dim"]:
    shards = mesh.shape[SHARD_AXIS] if striped else 1

    def body(array, row_ids, rows):
        shard = jax.lax.axis_index(SHARD_AXIS) if striped else 0
        mine = (row_ids >= 0) & (row_ids % shards == shard)
        places = jnp.where(mine, row_ids // shards, len(array))
        return array.at[places].set(rows.astype(array.dtype), mode="drop")

    spec, everywhere = TABLE_SPEC if striped else PartitionSpec(), PartitionSpec()
    return jax.shard_map(
        body, mesh=mesh, in_specs=(spec, everywhere, everywhere), out_specs=spec, check_vma=False
    )(array, row_ids, rows)
