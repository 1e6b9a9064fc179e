import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from deepfm_jax.distributed.partitioning import TABLE_SPEC, create_mesh
from deepfm_jax.embedding import restripe, row_writes, striped_rows
from deepfm_jax.embedding.row_writes import write_rows


def laid_out(array, mesh, striped):
    shards = mesh.shape["shard"] if striped else 1
    sharding = NamedSharding(mesh, TABLE_SPEC if striped else PartitionSpec())
    striped_array = restripe(jnp.asarray(array), 1, shards, striped_rows(len(array), shards))
    return jax.device_put(striped_array, sharding)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 60),
    devices=st.sampled_from([(1, 1), (3, 1), (8, 1), (6, 2)]),
    striped=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16", "bool"]),
)
def test_each_row_lands_in_its_place_on_any_number_of_devices(seed, rows, devices, striped, dtype):
    rng = np.random.default_rng(seed)
    count, replicas = devices
    mesh = create_mesh(jax.devices()[:count], replicas=replicas)
    shape = () if dtype == "bool" else (3,)
    array = np.asarray(jnp.asarray(rng.normal(size=(rows, *shape)) > 1, dtype))
    row_ids = rng.permutation(rows)[: rng.integers(rows + 1)]
    new = rng.normal(size=(len(row_ids), *shape)).astype(np.float32)
    new = new > 0 if dtype == "bool" else new
    expected = array.copy()
    for row, numbers in zip(row_ids, new, strict=True):
        expected[row] = np.asarray(jnp.asarray(numbers, dtype))
    there = laid_out(expected, mesh, striped)
    found = write_rows(laid_out(array, mesh, striped), row_ids, new, mesh, striped=striped)
    assert found.sharding.is_equivalent_to(there.sharding, found.ndim)
    chex.assert_trees_all_equal(np.asarray(found), np.asarray(there))


@pytest.mark.parametrize("chunk", [1, 4, 10, 11])
def test_rows_come_in_parts(monkeypatch, chunk):
    monkeypatch.setattr(row_writes, "_CHUNK", chunk)
    mesh = create_mesh(jax.devices()[:2])
    new = np.arange(1, 11, dtype=np.float32)
    row_ids = np.arange(10)[::-1] * 2
    array = laid_out(np.zeros(20, np.float32), mesh, True)
    found = restripe(write_rows(array, row_ids, new, mesh, striped=True), 2, 1, 20)
    expected = np.zeros(20, np.float32)
    expected[row_ids] = new
    chex.assert_trees_all_equal(np.asarray(found), expected)


def test_no_device_ever_holds_the_table():
    mesh = create_mesh(jax.devices())
    array = laid_out(np.zeros((8000, 2), np.float32), mesh, True)
    args = (array, np.arange(16, dtype=np.int32), np.ones((16, 2), np.float32))
    text = row_writes._written.lower(*args, mesh=mesh, striped=True).compile().as_text()
    assert "all-gather" not in text
    assert "f32[8000,2]" not in text
