"""Training with fields of several slots, some of them empty, and with shared rows."""

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import Feature
from deepfm_jax.distributed.partitioning import Partitioning, batch_sharding, create_mesh
from deepfm_jax.embedding import restripe
from deepfm_jax.features import as_features, by_slot, total_rows
from deepfm_jax.training.network import Network, inputs_of
from deepfm_jax.training.optimizer import create_for, create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_score_step, make_train_step
from tests.small_models import small_model

# The last field is a cross for models that have crosses.
DIMS = (21, Feature(13, 4), Feature(21, 3, shared_with=0), 7)
BATCH = 32
MODELS = ("fm", "fnn", "wide_deep", "deepfm")


def batch_of(seed, empty=0.5):
    rng = np.random.default_rng(seed)
    rows, slots = np.array([21, 13, 21, 7]), np.array([1, 4, 3, 1])
    tops = by_slot(as_features(DIMS), rows)
    ids = np.minimum(rng.zipf(1.4, (BATCH, len(tops))) - 1, tops - 1).astype(np.int32)
    values = rng.normal(1, 0.5, ids.shape).astype(np.float32)
    left_empty = (by_slot(as_features(DIMS), slots) > 1) & (rng.random(ids.shape) < empty)
    ids[left_empty], values[left_empty] = -1, 0.0
    return {
        "ids": ids,
        "values": values,
        "labels": rng.integers(0, 2, (BATCH, 1)).astype(np.float32),
        "mask": (np.arange(BATCH) < BATCH - 3).astype(np.float32),
    }


def run(name, settings, path="sparse", devices=1, steps=30, empty=0.5, partitioning=None):
    """Parameters before and after, with the table's rows in their order; losses and logits."""
    mesh = create_mesh(jax.devices()[:devices])
    where = (mesh, partitioning or Partitioning())
    model, optimizer = small_model(name, DIMS), create_optimizer(settings, steps, path)
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, *where))
    before = jax.tree.map(np.array, state.params)
    step, losses = make_train_step(Network(model), optimizer, placement_for(optimizer, *where)), []
    spread = batch_sharding(mesh, BATCH)
    for index in range(steps):
        state, metrics = step(state, jax.device_put(batch_of(index, empty), spread))
        losses.append(float(metrics["loss"]))
    batch = jax.device_put(batch_of(steps), spread)
    logits = make_score_step(Network(model), placement_for(optimizer, *where))(
        state.weights, inputs_of(batch)
    )
    table = {
        array: restripe(rows, devices, 1, min(len(rows), total_rows(as_features(DIMS))))
        for array, rows in state.params["table"].items()
    }
    after = jax.tree.map(np.array, {**state.params, "table": table})
    return before, after, losses, np.array(logits)


@pytest.mark.parametrize("name", MODELS)
def test_sparse_steps_equal_dense_ones(name):
    settings = OptimizerSettings("adagrad", learning_rate=0.05, clip_norm=0.3)
    _, dense, losses, logits = run(name, settings, "dense")
    _, sparse, same, also = run(name, settings)
    chex.assert_trees_all_close(same, losses, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_close(also, logits, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_close(sparse, dense, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "room"), [("adam", 1.0), ("rowwise_adagrad", 0.05)])
def test_eight_devices_give_what_one_does(optimizer, room):
    settings = OptimizerSettings("sgd", learning_rate=0.05, rows=RowSettings(name=optimizer))
    many = run("deepfm", settings, devices=8, partitioning=Partitioning(exchange_capacity=room))
    one = run("deepfm", settings)
    chex.assert_trees_all_close(many[2:], one[2:], rtol=1e-4, atol=1e-5)
    for array, rows in one[1]["table"].items():
        chex.assert_trees_all_close(
            many[1]["table"][array][: len(rows)], rows, rtol=1e-4, atol=1e-5
        )


def test_an_empty_slot_touches_no_row():
    # Neither momentum nor a penalty may move the first row of a field that no example reads.
    settings = OptimizerSettings("adam", learning_rate=0.05, l2=Penalties(table=0.5))
    before, after, *_ = run("deepfm", settings, empty=1.0)
    own = np.r_[21:34]
    for array in before["table"]:
        old, new = before["table"][array], after["table"][array]
        assert old[own].tobytes() == new[own].tobytes()
        assert (old[:3] != new[:3]).all()


def test_the_path_is_chosen_by_slots_and_by_rows_that_are_not_shared():
    model = small_model("deepfm", DIMS)  # 41 rows, 9 lookups per example
    settings = OptimizerSettings(table="auto")
    assert create_for(settings, 100, model, 4).rows is not None
    assert create_for(settings, 100, model, 5).rows is None
