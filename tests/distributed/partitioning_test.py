import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from deepfm_jax import DeepFM, UserError
from deepfm_jax.distributed.partitioning import (
    BATCH_SPEC,
    TABLE_SPEC,
    Partitioning,
    Placement,
    array_path,
    batch_sharding,
    create_mesh,
)
from deepfm_jax.embedding import restripe
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import create_state, placement_for, state_shardings

DENSE, SPARSE = (create_optimizer(OptimizerSettings(), 1, path) for path in ("dense", "sparse"))
NETWORK = Network(DeepFM((40, 23), embed_dim=4, mlp_dims=(8,)))
EVERYWHERE = PartitionSpec()


def specs_of(optimizer, rules=()):
    """The spec of each array of a state, by its path."""
    placement = placement_for(optimizer, create_mesh(), Partitioning(rules=rules))
    shardings = state_shardings(NETWORK, optimizer, placement)
    return {array_path(path): s.spec for path, s in jax.tree.leaves_with_path(shardings)}


def test_rows_of_the_table_its_slots_and_its_scratch_are_split_and_the_rest_is_on_every_device():
    specs = specs_of(SPARSE)
    split = {path for path, spec in specs.items() if spec == TABLE_SPEC}
    assert {path.split("/")[0] for path in split} == {"params", "row_state", "scratch"}
    # Two arrays, Adam's two slots of each, and the scratch.
    assert len(split) == 7
    assert all(spec == EVERYWHERE for path, spec in specs.items() if path not in split)


def test_a_table_that_is_updated_densely_is_on_every_device():
    assert set(specs_of(DENSE).values()) == {EVERYWHERE}


def test_rules_place_parameters_and_their_moments_and_the_first_that_matches_wins():
    rules = (("tower/dense_0/kernel", (None, "shard")), ("tower/", ()), ("kernel", ("shard",)))
    specs = specs_of(SPARSE, rules)
    found = {path for path, spec in specs.items() if spec == PartitionSpec(None, "shard")}
    assert sum(path.startswith("params/") for path in found) == 1
    assert sum(path.startswith("opt_state/") for path in found) == 2  # Adam's moments
    assert len(found) == 3


def test_no_rule_reaches_the_table():
    rules = ((".", ("shard",)),)
    shapes = {"params": {"table": {"a": jnp.zeros((8, 8))}}, "b": jnp.zeros((8, 8))}
    found = Placement(create_mesh(), False, Partitioning(rules=rules)).shardings(shapes)
    assert found["params"]["table"]["a"].spec == EVERYWHERE
    assert found["b"].spec == PartitionSpec("shard")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (("shard",), r"splits an axis of 12 of a \(12, 8\) into 8 parts"),
        ((None, ("replica", "shard")), None),
        (("replica", "model"), r"names mesh axis 'model'; there are \['replica', 'shard'\]"),
        ((None, None, "shard"), r"gives \(None, None, 'shard'\) to a, which has 2 axes"),
        ("shard", r"gives 'shard' to a, which has 2 axes"),
    ],
)
def test_a_rule_that_does_not_fit_its_array_is_refused(spec, message):
    def place():
        shapes = {"a": jnp.zeros((12, 8))}
        rules = (("a", spec),)
        return Placement(create_mesh(), True, Partitioning(rules=rules)).shardings(shapes)

    if message is None:
        assert place()["a"].spec == PartitionSpec(*spec)
    else:
        with pytest.raises(UserError, match=message):
            place()


@pytest.mark.parametrize(
    ("partitioning", "message"),
    [
        ({"replicas": 0}, "partitioning: replicas=0 must be a whole number of at least 1"),
        ({"exchange_capacity": 0.0}, "exchange_capacity=0.0 must be a finite number above 0"),
        (
            {"exchange_capacity": float("nan")},
            "exchange_capacity=nan must be a finite",
        ),
        (
            {"exchange_dtype": "float16"},
            "exchange_dtype='float16' must be one of 'float32'",
        ),
        ({"rules": (("(", ()),)}, r"partitioning.rules has \('\(', \(\)\).*give a regex"),
        (
            {"rules": ("kernel",)},
            r"partitioning: rules=.*'kernel'.* must be a list, each item a",
        ),
        ({"replica": 2}, "partitioning has no option 'replica'; did you mean 'replicas'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(partitioning, message):
    config = {"data": {"name": "frappe"}, "model": {"name": "lr"}, "partitioning": partitioning}
    with pytest.raises(UserError, match=message):
        Experiment.from_mapping(config)


def test_rules_come_back_from_json_as_they_were():
    rules = (("tower/.*_0/kernel", (None, ("replica", "shard"))), ("bias", ()))
    partitioning = {"rules": rules, "exchange_dtype": "bfloat16"}
    config = {"data": {"name": "frappe"}, "model": {"name": "lr"}, "partitioning": partitioning}
    experiment = Experiment.from_mapping(config)
    assert experiment.partitioning == Partitioning(**partitioning)
    assert Experiment.from_mapping(experiment.to_dict()) == experiment


def test_devices_that_do_not_split_into_replicas_are_refused():
    assert dict(create_mesh(replicas=4).shape) == {"replica": 4, "shard": 2}
    with pytest.raises(UserError, match=r"replicas=3 does not split 8 devices evenly"):
        create_mesh(replicas=3)


@pytest.mark.parametrize("optimizer", [DENSE, SPARSE])
def test_a_state_is_created_where_it_will_live(optimizer):
    state = create_state(NETWORK, optimizer, 3, placement_for(optimizer, create_mesh()))
    table = state.params["table"]["embedding"]
    # 63 rows on 8 devices are 8 on each, the last of which is no row's.
    shape, stripes = ((8, 4), 8) if optimizer is SPARSE else ((63, 4), 1)
    assert [shard.data.shape for shard in table.addressable_shards] == [shape] * 8
    one_device = placement_for(optimizer, create_mesh(jax.devices()[:1]))
    alone = create_state(NETWORK, optimizer, 3, one_device)
    for name, array in state.params["table"].items():
        in_order = restripe(array, stripes, 1, 63)
        np.testing.assert_array_equal(in_order, alone.params["table"][name])
        assert not np.asarray(array)[63:].any()
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, {**state.params, "table": ()}),
        jax.tree.map(np.asarray, {**alone.params, "table": ()}),
        rtol=1e-6,
    )


@pytest.mark.parametrize("batch_size", [0, -8, 12])
def test_a_batch_that_does_not_split_is_refused(batch_size):
    with pytest.raises(UserError, match=rf"batch_size={batch_size} .* multiple of 8"):
        batch_sharding(create_mesh(), batch_size)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_batch_is_split_evenly_over_all_devices(replicas):
    sharding = batch_sharding(create_mesh(replicas=replicas), 16)
    assert sharding.spec == BATCH_SPEC
    batch = jax.device_put(np.zeros((16, 3)), sharding)
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 3)}
