"""Training on many devices is training on one: every model, every row optimizer.

A model sees no row optimizer, and a row optimizer sees a model only through the arrays that its
table has: so every model trains with one row optimizer, and every other row optimizer trains the
table that has arrays of all kinds.
"""

import dataclasses
import functools
import re

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import MODELS
from deepfm_jax.distributed.partitioning import (
    DEFAULT_PARTITIONING,
    Partitioning,
    batch_sharding,
    create_mesh,
)
from deepfm_jax.embedding import ROW_OPTIMIZERS, restripe, tables
from deepfm_jax.training.network import Network, inputs_of
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.state import create_state, placement_for, weights_layout
from deepfm_jax.training.step import make_score_step, make_train_step
from tests.small_models import EVERY_KIND_OF_ARRAY, small_model

# Neither their sum nor the sum without the last, which may be a cross, is divisible by 8.
DIMS, BATCH = (37, 1, 23), 32


def batch_of(seed):
    """Zipf ids, so that all devices read some rows and none reads most of them."""
    rng = np.random.default_rng(seed)
    ids = np.stack([np.minimum(rng.zipf(1.4, BATCH) - 1, dim - 1) for dim in DIMS], axis=1)
    return {
        "ids": ids.astype(np.int32),
        "values": rng.normal(1, 0.5, ids.shape).astype(np.float32),
        "labels": rng.integers(0, 2, (BATCH, 1)).astype(np.float32),
        "mask": (np.arange(BATCH) < BATCH - 3).astype(np.float32),
    }


@functools.cache
def scored(name, devices, partitioning, **changes):
    """The compiled scoring step, which is the same for all row optimizers."""
    mesh = create_mesh(jax.devices()[:devices], partitioning.replicas)
    model = small_model(name, DIMS, **changes)
    optimizer = create_optimizer(OptimizerSettings("sgd"), 1, "sparse")
    return make_score_step(Network(model), placement_for(optimizer, mesh, partitioning))


@functools.cache
def run(name, settings, devices=8, steps=20, partitioning=DEFAULT_PARTITIONING, **changes):
    """Losses, final parameters with the table's rows in their order, and logits of a batch."""
    mesh = create_mesh(jax.devices()[:devices], partitioning.replicas)
    model = small_model(name, DIMS, **changes)
    optimizer = create_optimizer(settings, steps, "sparse")
    where = (mesh, partitioning)
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, *where))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, *where))
    spread = batch_sharding(mesh, BATCH)
    losses = []
    for index in range(steps):
        state, metrics = step(state, jax.device_put(batch_of(index), spread))
        losses.append(metrics["loss"])
    weights = state.weights
    batch = jax.device_put(batch_of(steps), spread)
    logits = scored(name, devices, partitioning, **changes)(weights, inputs_of(batch))
    alone = weights_layout(Network(model), placement_for(optimizer, create_mesh(jax.devices()[:1])))
    table = {
        array: restripe(weights.params["table"][array], mesh.shape["shard"], 1, shape.shape[0])
        for array, shape in alone.params["table"].items()
    }
    params = {**weights.params, "table": table}
    return jax.tree.map(np.asarray, (losses, params, logits))


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, "rowwise_adagrad") for name in sorted(MODELS)),
        *(
            (EVERY_KIND_OF_ARRAY, other)
            for other in sorted({*ROW_OPTIMIZERS} - {"rowwise_adagrad"})
        ),
    ],
)
def test_twenty_steps_on_eight_devices_are_those_of_one(name, optimizer):
    settings = OptimizerSettings("sgd", learning_rate=0.05, rows=RowSettings(name=optimizer))
    many, one = run(name, settings), run(name, settings, devices=1)
    # Sums over devices are taken in a different order.
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_the_sort_of_accelerators_trains_as_the_slot_map(optimizer, monkeypatch):
    settings = OptimizerSettings("sgd", learning_rate=0.05, rows=RowSettings(name=optimizer))
    mapped = run("deepfm", settings)
    monkeypatch.setattr(tables, "needs_scratch", lambda platform: False)
    ordered = run.__wrapped__("deepfm", settings)
    chex.assert_trees_all_close(ordered, mapped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("devices", "partitioning"),
    [
        (8, Partitioning(exchange_capacity=0.05)),
        (8, Partitioning(replicas=2)),
        (8, Partitioning(replicas=8)),
        (2, Partitioning()),
    ],
)
def test_penalties_and_clipping_are_those_of_one_device(devices, partitioning):
    settings = OptimizerSettings(
        "adagrad", learning_rate=0.05, clip_norm=0.1, l2=Penalties(table=0.3)
    )
    many = run(EVERY_KIND_OF_ARRAY, settings, devices, 10, partitioning)
    one = run(EVERY_KIND_OF_ARRAY, settings, 1, 10)
    unclipped = dataclasses.replace(settings, clip_norm=0.0)
    free = run(EVERY_KIND_OF_ARRAY, unclipped, 1, 10)
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-5)
    assert np.abs(np.subtract(one[2], free[2])).max() > 1e-3


def test_batch_norm_sees_the_whole_batch():
    settings = OptimizerSettings("sgd", learning_rate=0.05)
    many, one = (run("deepfm", settings, n, 10, batch_norm=True) for n in (8, 1))
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-5)


def test_dropout_does_not_depend_on_the_devices():
    settings = OptimizerSettings("sgd", learning_rate=0.05)
    many, one = (run("deepfm", settings, n, 10, dropout=0.5) for n in (8, 1))
    chex.assert_trees_all_close(many, one, rtol=1e-4, atol=1e-5)


def test_gradients_in_bfloat16_train_nearly_as_well():
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    exact = run("deepfm", settings, steps=50)
    rounded = run(
        "deepfm", settings, steps=50, partitioning=Partitioning(exchange_dtype="bfloat16")
    )
    chex.assert_trees_all_close(rounded, exact, atol=0.05)
    assert rounded[0] != exact[0]


def test_a_bfloat16_table_trains_on_eight_devices():
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    single = run("deepfm", settings, steps=50)
    half = run("deepfm", settings, steps=50, table_dtype="bfloat16")
    assert half[1]["table"]["embedding"].dtype == jax.numpy.bfloat16
    chex.assert_trees_all_close(half[0], single[0], rtol=1e-7, atol=0.05)


def test_a_rule_splits_a_tower_and_changes_no_number():
    settings = OptimizerSettings("adam", learning_rate=0.05)
    rules = (("tower/.*_0/kernel", (None, "shard")), ("tower/.*_1/kernel", ("shard", None)))
    split = run("deepfm", settings, partitioning=Partitioning(rules=rules), mlp_dims=(8, 8))
    whole = run("deepfm", settings, mlp_dims=(8, 8))
    chex.assert_trees_all_close(split, whole, rtol=1e-4, atol=1e-5)


def test_an_id_out_of_range_makes_the_loss_nan_and_touches_no_neighbour():
    batch = batch_of(0)
    batch["ids"][3, 0] = DIMS[0]
    mesh = create_mesh()
    model = small_model("lr", DIMS)
    optimizer = create_optimizer(OptimizerSettings("sgd", learning_rate=0.1), 1, "sparse")
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh, BATCH)))
    assert np.isnan(float(metrics["loss"]))
    table = np.asarray(restripe(state.params["table"]["first_order"], 8, 1, sum(DIMS)))
    touched = {int(row) for row in (batch["ids"] + [0, 37, 38]).ravel()} - {37}
    assert not table[[row for row in range(sum(DIMS)) if row not in touched | {37}]].any()


@pytest.mark.parametrize("row_optimizer", ["rowwise_adagrad", "adam"])
def test_the_step_moves_rows_and_never_tables(row_optimizer):
    rows = 8 * 50_000
    mesh = create_mesh()
    model = small_model("deepfm", (rows // 2, rows // 4, rows // 4))
    optimizer = create_optimizer(
        OptimizerSettings(rows=RowSettings(name=row_optimizer)), 1, "sparse"
    )
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    batch = jax.device_put(batch_of(0), batch_sharding(mesh, BATCH))
    compiled = step.lower(state, batch).compile()
    memory = compiled.memory_analysis()  # of one device
    owned = (state.params["table"], state.row_state, state.scratch)
    assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in jax.tree.leaves(owned)) / 8
    assert memory.temp_size_in_bytes < rows / 8
    assert not re.findall(rf"\[{rows // 8}(?:,3)?\]\S* copy\(", compiled.as_text())
    assert not re.findall(rf"\[{rows}(?:,3)?\]", compiled.as_text().split("ENTRY")[1])
