"""Lookups and updates over many devices are those of one device, whatever the ids."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding

from deepfm_jax.distributed.partitioning import (
    TABLE_SPEC,
    Partitioning,
    batch_sharding,
    create_mesh,
)
from deepfm_jax.embedding import (
    ROW_OPTIMIZERS,
    LocalTable,
    RowUpdate,
    ShardedTable,
    create_scratch,
    read_rows,
    restripe,
    striped_rows,
)
from deepfm_jax.embedding.exchange import capacity

DIM = 3


def table_of(rows, vectors):
    """First-order weights of all rows, vectors of the first so many."""
    rng = np.random.default_rng(rows)
    return {
        "first_order": jnp.asarray(rng.normal(size=rows), jnp.float32),
        "embedding": jnp.asarray(rng.normal(size=(vectors, DIM)), jnp.float32),
    }


def gradients_of(rng, ids):
    return {
        "first_order": rng.normal(size=ids.size).astype(np.float32),
        "embedding": rng.normal(size=(ids.size, DIM)).astype(np.float32),
    }


def ids_of(kind, rng, rows, shape, shards):
    """Row ids, skewed as ``kind`` says."""
    if kind == "constant":
        return np.full(shape, rows - 1, np.int32)
    if kind == "one_shard":  # every row asked for has one owner
        return ((rng.integers(0, rows, shape) // shards) * shards).astype(np.int32)
    if kind == "zipf":
        return np.minimum(rng.zipf(1.3, shape) - 1, rows - 1).astype(np.int32)
    return rng.integers(0, rows, shape).astype(np.int32)


def laid_out(table, mesh):
    shards = mesh.shape["shard"]
    return {
        name: jax.device_put(
            restripe(array, 1, shards, striped_rows(len(array), shards)),
            NamedSharding(mesh, TABLE_SPEC),
        )
        for name, array in table.items()
    }


def plain(arrays, mesh, like):
    """Striped arrays in the order of their rows, as NumPy."""
    shards = mesh.shape["shard"]
    return {
        name: np.asarray(restripe(array, shards, 1, len(like[name])))
        for name, array in arrays.items()
    }


@functools.cache
def lookup(rows, mesh, settings):
    access = LocalTable(rows) if mesh.size == 1 else ShardedTable(rows, mesh, settings)
    return jax.jit(access.lookup)


# Few sizes, many ids: each size is a compilation.
cases = {
    "seed": st.integers(0, 10**6),
    "kind": st.sampled_from(["uniform", "zipf", "constant", "one_shard"]),
    "devices": st.sampled_from([1, 2, 4, 8]),
    "rows": st.sampled_from([5, 61]),
    "room": st.sampled_from([1.0, 0.05]),
}


@settings(max_examples=60, deadline=None)
@given(**cases)
def test_a_lookup_is_bit_identical_on_any_number_of_devices(seed, kind, devices, rows, room):
    rng = np.random.default_rng(seed)
    mesh = create_mesh(jax.devices()[:devices])
    table = table_of(rows, -(-2 * rows // 3))
    ids = ids_of(kind, rng, rows, (24, 3), devices)
    ids[rng.random(ids.shape) < 0.05] = rows  # no row
    spread = jax.device_put(ids, batch_sharding(mesh, 24))
    settings = Partitioning(exchange_capacity=room)
    found, _ = lookup(rows, mesh, settings)(laid_out(table, mesh), spread)
    expected = read_rows(table, jnp.asarray(ids))
    chex.assert_trees_all_equal(np.asarray(found["first_order"]), expected["first_order"])
    has_vector = (ids < len(table["embedding"])) | (ids == rows)
    chex.assert_trees_all_equal(
        np.asarray(found["embedding"])[has_vector], expected["embedding"][has_vector]
    )
    assert np.isnan(expected["first_order"][ids == rows]).all()


def updated(access, mesh, table, ids, grads, optimizer, clip_norm):
    """Table and row state after one update, rows in their order."""
    rows = len(table["first_order"])
    arrays = laid_out(table, mesh)
    shards = mesh.shape["shard"]
    optimizers = {name: ROW_OPTIMIZERS[optimizer].create(0.1) for name in table}

    def update(arrays, ids, grads):
        how = RowUpdate(
            step=jnp.asarray(3, jnp.int32),
            scale=jnp.asarray(0.5),
            key=jax.random.key(0),
            optimizers=optimizers,
            decay=lambda weights, grads: jax.tree.map(lambda w, g: g + 0.3 * w, weights, grads),
        )
        slots = {name: optimizers[name].init(array) for name, array in arrays.items()}
        _, route = access.lookup(arrays, ids)
        scratch = create_scratch(striped_rows(rows, shards))
        summed, scratch = access.summed(route, scratch, grads)
        factor = None
        if clip_norm:
            square, scratch = access.square(how, arrays, scratch, summed)
            factor = jnp.minimum(1.0, clip_norm / jnp.sqrt(square))
        moved, slots, _ = access.move(how, arrays, slots, scratch, summed, factor)
        return moved, slots

    spread = batch_sharding(mesh, len(ids))
    flat = {name: jax.device_put(grad, spread) for name, grad in grads.items()}
    moved, slots = jax.jit(update)(arrays, jax.device_put(ids, spread), flat)
    return (
        plain(moved, mesh, table),
        jax.tree.map(
            lambda slot, array: np.asarray(restripe(slot, shards, 1, len(array))),
            slots,
            {name: jax.tree.map(lambda _, a=table[name]: a, slots[name]) for name in table},
        ),
    )


@settings(max_examples=15, deadline=None)
@given(**cases, optimizer=st.sampled_from(sorted(ROW_OPTIMIZERS)), clip=st.sampled_from([0.0, 0.2]))
def test_an_update_is_that_of_one_device(seed, kind, devices, rows, room, optimizer, clip):
    rng = np.random.default_rng(seed)
    mesh = create_mesh(jax.devices()[:devices])
    table = table_of(rows, -(-2 * rows // 3))
    ids = ids_of(kind, rng, rows, (24, 3), devices)
    ids[rng.random(ids.shape) < 0.05] = rows
    grads = gradients_of(rng, ids)
    # What autodiff gives for readings of no row; it must reach none.
    for grad in grads.values():
        grad[ids.ravel() == rows] = np.nan
    grads["embedding"][ids.ravel() >= len(table["embedding"])] = 0.0
    alone = create_mesh(jax.devices()[:1])
    settings = Partitioning(exchange_capacity=room)
    many = updated(ShardedTable(rows, mesh, settings), mesh, table, ids, grads, optimizer, clip)
    one = updated(LocalTable(rows), alone, table, ids, grads, optimizer, clip)
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-5)
    untouched = np.setdiff1d(np.arange(rows), ids)
    for name, array in table.items():
        kept = untouched[untouched < len(array)]
        assert many[0][name][kept].tobytes() == np.asarray(array)[kept].tobytes()


@pytest.mark.parametrize("replicas", [2, 4, 8])
@pytest.mark.parametrize("kind", ["zipf", "one_shard"])
def test_replicas_all_move_by_the_gradients_of_all(replicas, kind):
    rng = np.random.default_rng(0)
    rows, mesh = 61, create_mesh(replicas=replicas)
    table = table_of(rows, rows)
    ids = ids_of(kind, rng, rows, (24, 3), mesh.shape["shard"])
    grads = gradients_of(rng, ids)
    settings = Partitioning(replicas, exchange_capacity=0.3)
    many = updated(ShardedTable(rows, mesh, settings), mesh, table, ids, grads, "adagrad", 0.2)
    alone = create_mesh(jax.devices()[:1])
    one = updated(LocalTable(rows), alone, table, ids, grads, "adagrad", 0.2)
    chex.assert_trees_all_close(many, one, rtol=1e-5, atol=1e-6)


def test_an_exchange_in_bfloat16_rounds_rows_and_nothing_more():
    rng = np.random.default_rng(0)
    rows, mesh = 61, create_mesh()
    table = table_of(rows, rows)
    ids = ids_of("uniform", rng, rows, (24, 3), 8)
    settings = Partitioning(exchange_dtype="bfloat16")
    found, _ = lookup(rows, mesh, settings)(laid_out(table, mesh), ids)
    rounded = jax.tree.map(lambda array: array.astype(jnp.bfloat16), table)
    expected = read_rows(rounded, jnp.asarray(ids))
    chex.assert_trees_all_equal(np.asarray(found["embedding"]), expected["embedding"])
    assert (np.asarray(found["embedding"]) != np.asarray(table["embedding"])[ids]).any()


def test_the_room_of_a_round_shrinks_with_the_share_of_each_shard():
    assert capacity(10_000, 1, 1.0) == 10_000  # all of them, whatever the ids
    assert capacity(100, 100, 0.01) == 8
    fair = [capacity(39_936, shards, 1.0) * shards / 39_936 for shards in (16, 64, 256)]
    assert all(1 < ratio < 1.4 for ratio in fair)
    assert fair == sorted(fair)
