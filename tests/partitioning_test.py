import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from deepfm_jax import DeepFM, UserError
from deepfm_jax.partitioning import batch_sharding, create_mesh, state_shardings
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.settings import OptimizerSettings
from deepfm_jax.training.state import abstract_state, create_state

DENSE, SPARSE = (create_optimizer(OptimizerSettings(), 1, path) for path in ("dense", "sparse"))


def by_path(shardings):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.spec
        for path, sharding in jax.tree.leaves_with_path(shardings)
    }


@pytest.mark.parametrize(("optimizer", "names"), [(DENSE, {"table"}), (SPARSE, {"table", "slots"})])
def test_table_rows_and_their_slots_are_split_and_the_rest_is_replicated(optimizer, names):
    shapes = abstract_state(DeepFM((40, 24), embed_dim=4, mlp_dims=(8,)), optimizer, create_mesh())
    specs = by_path(state_shardings(shapes, create_mesh()))
    split = {path for path, spec in specs.items() if spec == PartitionSpec("data")}
    # Two arrays, Adam's two slots of each, and on the sparse path the scratch.
    assert len(split - {"scratch"}) == 6
    assert ("scratch" in split) == (optimizer is SPARSE)
    assert all(names & set(path.split("/")) for path in split - {"scratch"})
    assert all(spec == PartitionSpec() for path, spec in specs.items() if path not in split)


def test_a_table_that_does_not_divide_is_replicated():
    shapes = abstract_state(DeepFM((40, 23), embed_dim=4, mlp_dims=(8,)), SPARSE, create_mesh())
    assert set(by_path(state_shardings(shapes, create_mesh())).values()) == {PartitionSpec()}


def test_the_first_rule_that_matches_wins():
    mesh = create_mesh()
    tree = {"table": {"a": jnp.zeros((8, 8)), "b": jnp.zeros((8, 8))}}
    rules = (("table/b", PartitionSpec(None, "data")), ("table/", PartitionSpec("data")))
    found = state_shardings(tree, mesh, rules)
    assert found["table"]["a"] == NamedSharding(mesh, PartitionSpec("data"))
    assert found["table"]["b"] == NamedSharding(mesh, PartitionSpec(None, "data"))


@pytest.mark.parametrize("optimizer", [DENSE, SPARSE])
def test_a_state_is_created_where_it_will_live(optimizer):
    model = DeepFM((40, 24), embed_dim=4, mlp_dims=(8,))
    state = create_state(model, optimizer, 3, create_mesh())
    table = state.params["table"]["embedding"]
    assert [shard.data.shape for shard in table.addressable_shards] == [(8, 4)] * 8
    alone = create_state(model, optimizer, 3, create_mesh(jax.devices()[:1]))
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, state), jax.tree.map(np.asarray, alone), rtol=1e-6
    )


@pytest.mark.parametrize("batch_size", [0, -8, 12])
def test_a_batch_that_does_not_split_is_refused(batch_size):
    with pytest.raises(UserError, match=rf"batch_size={batch_size} .* multiple of 8"):
        batch_sharding(create_mesh(), batch_size)


def test_a_batch_is_split_evenly():
    batch = jax.device_put(np.zeros((16, 3)), batch_sharding(create_mesh(), 16))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}
