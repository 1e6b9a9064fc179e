"""Row optimizers by name and keyword arguments, and penalties by group of parameters."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import ROW_OPTIMIZERS
from deepfm_jax.embedding.row_optimizers import RowOptimizerKind, sgd
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer, row_settings
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.parameter_groups import group_of
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_train_step
from tests.small_models import small_model


def test_rows_fall_back_on_the_optimizer_and_first_order_weights_on_the_rows():
    settings = OptimizerSettings(
        "adam", {"b1": 0.8}, learning_rate=0.1, rows=RowSettings(learning_rate=0.2)
    )
    vectors = RowSettings("adam", {"b1": 0.8}, 0.2)
    assert {key: value for key, (_, value) in row_settings(settings).items()} == {
        "first_order": vectors,
        "embedding": vectors,
    }
    settings = OptimizerSettings(
        "lion", rows=RowSettings("adagrad"), first_order=RowSettings("ftrl", "beta=2.0", 0.3)
    )
    found = row_settings(settings)
    assert found["embedding"][1] == RowSettings("adagrad", {}, 1e-3)
    assert found["first_order"][1] == RowSettings("ftrl", {"beta": 2.0}, 0.3)


def test_row_adagrad_can_be_pytorchs():
    options = {"initial_accumulator_value": 0.0, "eps": 1e-10, "eps_in_root": False}
    settings = OptimizerSettings(rows=RowSettings("adagrad", options, 0.05))
    rows = create_optimizer(settings, 1, "sparse").rows["embedding"]
    grads = np.random.default_rng(0).normal(0, 1e-3, (3, 4, 2)).astype(np.float32)
    weights = accumulator = np.zeros((4, 2))
    table, state = jnp.zeros((4, 2)), rows.init(jnp.zeros((4, 2)))
    for step, grad in enumerate(grads):
        # PyTorch 2.13, torch.optim.Adagrad with its defaults.
        accumulator = accumulator + grad.astype(np.float64) ** 2
        weights = weights - 0.05 * grad / (np.sqrt(accumulator) + 1e-10)
        touched = RowGradientsOfAll(jnp.asarray(grad))
        table, state = rows.update(table, state, touched, jnp.asarray(step), 1.0, jax.random.key(0))
    chex.assert_trees_all_close(table, weights, rtol=1e-5, atol=0)
    assert abs(weights).max() > 0.1  # The default would have moved these by a hundredth of it.


class RowGradientsOfAll:
    """Gradients of all rows, as ``embedding.RowGradients`` of a batch that reads each row once."""

    def __init__(self, grads):
        self.row_ids, self.grads = jnp.arange(len(grads), dtype=jnp.int32), grads
        self.chunk, self.count, self.ascending = len(grads), jnp.asarray(len(grads)), True


def test_a_new_row_optimizer_is_a_function_and_an_entry(monkeypatch):
    def doubled(learning_rate, factor=2.0):
        return sgd(lambda count: factor * learning_rate(count))

    monkeypatch.setitem(ROW_OPTIMIZERS, "doubled", RowOptimizerKind(doubled))
    settings = OptimizerSettings(rows=RowSettings("doubled", "factor=3.0", 0.1))
    rows = create_optimizer(settings, 1, "sparse").rows["embedding"]
    touched = RowGradientsOfAll(jnp.ones((4, 2)))
    table, _ = rows.update(jnp.zeros((4, 2)), (), touched, jnp.asarray(0), 1.0, jax.random.key(0))
    chex.assert_trees_all_close(table, np.full((4, 2), -0.3), rtol=1e-6, atol=0)


GROUPS = {
    "table/embedding": "table",
    "table/embedding_4": "table",
    "table/first_order": "first_order",
    "inputs/dense_3_kernel": "table",
    "inputs/dense_3_first_order": "first_order",
    "inputs/projection_2/kernel": "interaction",
    "tower/dense_0/kernel": "tower",
    "tower/out/kernel": "tower",
    "streams_1/dense_0/kernel": "tower",
    "head/tower_0/out/kernel": "tower",
    "out/kernel": "tower",
    "cross/cross_0/kernel": "interaction",
    "cross/v_0_kernel": "interaction",
    "interacting_0/query_kernel": "interaction",
    "kernel_products/kernel": "interaction",
    "cin/layer_0_kernel": "interaction",
    "gates_0/gate/dense_0/kernel": "interaction",
    "bias": None,
    "tower/dense_0/bias": None,
    "tower/batch_norm_0/scale": None,
}


@pytest.mark.parametrize(("path", "group"), GROUPS.items())
def test_every_kernel_belongs_to_a_group(path, group):
    tree = 1.0
    for key in reversed(path.split("/")):
        tree = {key: tree}
    ((found, _),) = jax.tree.leaves_with_path(tree)
    assert group_of(found) == group


def test_each_group_has_its_own_penalty():
    model = small_model("dcn_v2", (9, 7), mlp_dims=(4,))
    params, _ = Network(model).init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -2.0), params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    settings = OptimizerSettings(
        l2=Penalties(table=0.1, tower=0.2, interaction=0.3), l1=Penalties(interaction=0.05)
    )
    grads = create_optimizer(settings, 1, "dense").decay(params, zeros)
    expected = {"table": -0.2, "first_order": -0.2, "tower": -0.4, "interaction": -0.65, None: 0.0}

    def check(path, grad):
        chex.assert_trees_all_close(
            grad, np.full(grad.shape, expected[group_of(path)]), rtol=1e-6, atol=0
        )

    jax.tree.map_with_path(check, grads)


def test_frozen_rows_stay_under_weight_decay():
    settings = OptimizerSettings("adamw", {"weight_decay": 0.5}, "dense", learning_rate=0.1)
    optimizer = create_optimizer(settings, 1, "dense")
    optimizer = dataclasses.replace(optimizer, has_frozen_rows=True)
    network = Network(small_model("fm", (9, 7)))
    placement = placement_for(optimizer, create_mesh(jax.devices()[:1]))
    state = create_state(network, optimizer, 0, placement)
    state = state.replace(frozen={"embedding": jnp.arange(16) < 5})
    before = np.array(state.params["table"]["embedding"])
    batch = {
        "ids": np.zeros((4, 2), np.int32),
        "labels": np.ones((4, 1), np.float32),
        "mask": np.ones(4, np.float32),
    }
    after, _ = make_train_step(network, optimizer, placement)(state, batch)
    moved = (np.asarray(after.params["table"]["embedding"]) != before).any(axis=1)
    assert moved.tolist() == [row >= 5 for row in range(16)]
