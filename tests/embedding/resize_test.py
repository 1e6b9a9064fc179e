import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from deepfm_jax import UserError
from deepfm_jax.distributed.partitioning import TABLE_SPEC, create_mesh
from deepfm_jax.embedding import restripe, striped_rows, table_layout
from deepfm_jax.embedding.resize import Run, copy_rows, kept_runs
from deepfm_jax.features import Feature, as_features

DIM = 2


def numbered(rows, start):
    """First-order weights and vectors that name their row."""
    weights = np.arange(start, start + rows, dtype=np.float32)
    return {"first_order": weights, "embedding": np.stack([weights, weights + 0.5], axis=1)}


def runs_of(old_dims, new_dims):
    layouts = (table_layout(as_features(dims), 2, True) for dims in (old_dims, new_dims))
    return kept_runs(*layouts)


def grown(old, new, dims, grown_dims):
    """A field at a time, a row at a time."""
    result = {name: array.copy() for name, array in new.items()}
    start = new_start = 0
    for rows, more in zip(dims, grown_dims, strict=True):
        for row in range(rows):
            for name, array in result.items():
                if start + row < len(old[name]):
                    array[new_start + row] = old[name][start + row]
        start, new_start = start + rows, new_start + more
    return result


def laid_out(table, mesh, striped):
    shards = mesh.shape["shard"] if striped else 1
    sharding = NamedSharding(mesh, TABLE_SPEC if striped else PartitionSpec())
    return {
        name: jax.device_put(
            restripe(jnp.asarray(array), 1, shards, striped_rows(len(array), shards)), sharding
        )
        for name, array in table.items()
    }


@settings(max_examples=20, deadline=None)
@given(
    fields=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9)), min_size=1, max_size=6),
    devices=st.sampled_from([(1, 1), (2, 1), (3, 1), (8, 1), (6, 2)]),
    striped=st.booleans(),
    ends_early=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_each_row_goes_to_its_place_on_any_number_of_devices(
    fields, devices, striped, ends_early, dtype
):
    dims = [rows for rows, _ in fields]
    grown_dims = [rows + more for rows, more in fields]
    count, replicas = devices
    mesh = create_mesh(jax.devices()[:count], replicas=replicas)
    old, new = numbered(sum(dims), 1), numbered(sum(grown_dims), -100)
    if ends_early and len(dims) > 1:  # vectors of all fields but the last
        old["embedding"] = old["embedding"][: -dims[-1]]
        new["embedding"] = new["embedding"][: -grown_dims[-1]]
    old, new = (
        {name: np.asarray(jnp.asarray(array, dtype)) for name, array in table.items()}
        for table in (old, new)
    )
    found = copy_rows(
        laid_out(old, mesh, striped),
        laid_out(new, mesh, striped),
        {name: len(array) for name, array in old.items()},
        runs_of(dims, grown_dims),
        mesh,
        striped=striped,
    )
    expected = grown(old, new, dims, grown_dims)
    there = laid_out(expected, mesh, striped)
    for name, array in found.items():
        assert array.sharding.is_equivalent_to(there[name].sharding, array.ndim)
        chex.assert_trees_all_equal(np.asarray(array), np.asarray(there[name]))


def test_neighbours_that_move_together_are_one_run():
    assert runs_of((3, 4, 5), (3, 4, 5))["embedding"] == (Run(0, 0, 12),)
    assert runs_of((3, 4, 5), (3, 6, 5))["embedding"] == (Run(0, 0, 7), Run(7, 9, 5))
    assert runs_of((3, 4, 5), (4, 4, 9))["embedding"] == (Run(0, 0, 3), Run(3, 4, 9))


def test_fields_that_share_rows_have_none_of_their_own():
    old = (3, Feature(3, slots=2, shared_with=0), 5)
    new = (4, Feature(4, slots=2, shared_with=0), 5)
    assert runs_of(old, new)["embedding"] == (Run(0, 0, 3), Run(3, 4, 5))
    with pytest.raises(UserError, match="field 1 shares its rows"):
        runs_of(old, (4, 4, 5))


def test_a_table_that_has_become_smaller_is_refused():
    with pytest.raises(UserError, match="field 1 has 4 rows in the older table and 3 in this one"):
        runs_of((3, 4), (9, 3))
    with pytest.raises(UserError, match="the older table has 2 fields, and this one 3"):
        runs_of((3, 4), (3, 4, 1))


@pytest.mark.parametrize("devices", [2, 8])
def test_no_device_ever_holds_the_table(devices):
    mesh = create_mesh(jax.devices()[:devices])
    old, new = numbered(8000, 1), numbered(8400, -9000)
    runs = runs_of((4000, 4000), (4200, 4200))["embedding"]
    arrays = laid_out(old, mesh, True)["embedding"], laid_out(new, mesh, True)["embedding"]
    from deepfm_jax.embedding.resize import _copied

    text = _copied.lower(*arrays, runs=runs, mesh=mesh, striped=True).compile().as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text
    assert "all-reduce" not in text


def test_vectors_of_another_length_move_in_an_array_of_their_own():
    old = (Feature(3, dim=1), 4, Feature(5, dim=1))
    new = (Feature(4, dim=1), 4, Feature(5, dim=1))
    runs = runs_of(old, new)
    assert runs["embedding"] == runs["first_order"] == (Run(0, 0, 7), Run(7, 8, 5))
    assert runs["embedding_1"] == (Run(0, 0, 3), Run(3, 4, 5))
    with pytest.raises(UserError, match="field 0 has dim=1 in the older table and dim=None"):
        runs_of(old, (3, *old[1:]))
