"""Frozen rows, whose vectors no step moves."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
from deepfm_jax.embedding import ROW_OPTIMIZERS, restripe, stripes_of
from deepfm_jax.heads import OneTask
from deepfm_jax.training.checkpoint import Checkpoints, Progress, restore_frozen
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.pretrained_vectors import FirstVectors, with_first_vectors
from deepfm_jax.training.state import create_state, placement_for, weights_layout
from deepfm_jax.training.step import make_train_step
from tests.small_models import small_model

FIELDS = (9, 30, 5)
ROWS, DIM, BATCH = sum(FIELDS), 4, 24
# Rows of two fields, including the first and the last row.
FROZEN = np.array([0, 8, 9, 12, 13, 25, ROWS - 1])
VECTORS = np.random.default_rng(5).normal(size=(len(FROZEN), DIM), scale=2).astype(np.float32)
DEVICES = [(1, 1), (8, 1), (6, 2)]


def create(settings, devices, model=None):
    """A model, its optimizer, the mesh, and the state before the first step."""
    count, replicas = devices
    mesh = create_mesh(jax.devices()[:count], replicas=replicas)
    model = model or small_model("fm", FIELDS, embed_dim=DIM)
    optimizer = create_for(settings, 10, model, BATCH)
    optimizer = dataclasses.replace(optimizer, has_frozen_rows=True)
    first = [FirstVectors(FROZEN, VECTORS, True, "")]
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    return model, optimizer, mesh, with_first_vectors(state, optimizer, first, mesh)


def batch_of(seed, mesh=None):
    rng = np.random.default_rng(seed)
    batch = {
        "ids": np.stack(
            [rng.integers(rows, size=BATCH) for rows in FIELDS], axis=1, dtype=np.int32
        ),
        "labels": rng.integers(2, size=(BATCH, 1)).astype(np.float32),
        "mask": np.ones(BATCH, np.float32),
    }
    return batch if mesh is None else jax.device_put(batch, batch_sharding(mesh, BATCH))


def in_order(array, rows=ROWS):
    return np.asarray(restripe(array, stripes_of(array), 1, rows))


def table_of(state):
    return {name: in_order(array) for name, array in state.params["table"].items()}


PENALTIES = {"clip_norm": 0.5, "l2": Penalties(table=0.1), "l1": Penalties(table=0.01)}
SPARSE = [{"table": "sparse", "rows": RowSettings(name)} for name in ROW_OPTIMIZERS]
DENSE = [{"table": "dense", "name": name} for name in ("sgd", "adagrad", "adam")]
# A row optimizer sees rows that were gathered, from however many devices.
HOW = [
    *((how, (8, 1)) for how in (*SPARSE, *DENSE)),
    *((how, devices) for how in (SPARSE[0], DENSE[0]) for devices in ((1, 1), (6, 2))),
]


@pytest.mark.parametrize(("how", "devices"), HOW, ids=str)
def test_frozen_rows_stay_bit_for_bit_while_others_move(how, devices):
    settings = OptimizerSettings(learning_rate=0.1, **how, **PENALTIES)
    model, optimizer, mesh, state = create(settings, devices)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    before = table_of(state)
    chex.assert_trees_all_equal(before["embedding"][FROZEN], VECTORS)
    read = set()
    for seed in range(3):
        rows = batch_of(seed)["ids"] + np.cumsum([0, *FIELDS[:-1]])
        read |= set(rows.ravel().tolist())
        state, _ = step(state, batch_of(seed, mesh))
    after = table_of(state)
    assert read >= set(FROZEN.tolist())
    same = (after["embedding"].view(np.uint32) == before["embedding"].view(np.uint32)).all(axis=1)
    assert same[FROZEN].all()
    others = sorted(read - set(FROZEN.tolist()))
    assert not same[others].any()
    assert (after["first_order"][FROZEN] != before["first_order"][FROZEN]).any()


@pytest.mark.parametrize("devices", DEVICES)
def test_a_table_in_bfloat16_keeps_them_too(devices):
    model = small_model("fm", FIELDS, embed_dim=DIM, table_dtype="bfloat16")
    settings = OptimizerSettings(learning_rate=0.1, **PENALTIES)
    model, optimizer, mesh, state = create(settings, devices, model)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    before = table_of(state)["embedding"]
    for seed in range(3):
        state, _ = step(state, batch_of(seed, mesh))
    after = table_of(state)["embedding"]
    assert after.dtype == np.uint16
    chex.assert_trees_all_equal(after[FROZEN], before[FROZEN])
    moved = (after != before).any(axis=1)
    assert moved.sum() > ROWS // 2


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("table", ["sparse", "dense"])
def test_their_gradients_are_no_part_of_the_norm(table, devices):
    """One step of gradient descent against the gradient itself, in float64."""
    settings = OptimizerSettings("sgd", table=table, learning_rate=50.0, clip_norm=0.01)
    # Larger vectors have larger gradients.
    model = small_model("fm", FIELDS, embed_dim=DIM, init_std=2.0)
    model, optimizer, mesh, state = create(settings, devices, model)
    batch = jax.tree.map(jnp.asarray, batch_of(3))
    params = jax.tree.map(np.asarray, state.weights.params)
    params["table"] = table_of(state)

    def loss(params):
        logits = model.apply({"params": params}, batch["ids"])
        return OneTask().loss(logits[:, None], batch["labels"], batch["mask"])

    grads = jax.tree.map(lambda grad: np.asarray(grad, np.float64), jax.grad(loss)(params))
    norms = []
    for frozen in (grads["table"]["embedding"][FROZEN], 0):
        grads["table"]["embedding"][FROZEN] = frozen
        norms.append(np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(grads))))
    assert norms[0] > 1.05 * norms[1] > 0.1
    state, _ = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))(
        state, batch_of(3, mesh)
    )
    found = {**jax.tree.map(np.asarray, state.weights.params), "table": table_of(state)}
    jax.tree.map(
        lambda new, old, grad: chex.assert_trees_all_close(
            new, old - 0.5 * grad / norms[1], rtol=1e-4, atol=1e-5
        ),
        found,
        params,
        grads,
    )


@pytest.mark.parametrize(("saved", "restored"), [(8, 3), (3, 8), (1, 8), (8, 8)])
def test_a_checkpoint_knows_them_on_any_number_of_devices(tmp_path, saved, restored):
    settings = OptimizerSettings(table="sparse")
    *_, state = create(settings, (saved, 1))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress())
    model, optimizer, mesh, _ = create(settings, (restored, 1))
    like = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    assert not np.asarray(like.frozen["embedding"]).any()
    with Checkpoints(tmp_path) as checkpoints:
        state = checkpoints.restore(0, like)
    assert state.frozen["embedding"].sharding == like.frozen["embedding"].sharding
    expected = np.isin(np.arange(ROWS), FROZEN)
    chex.assert_trees_all_equal(in_order(state.frozen["embedding"]), expected)
    alone = restore_frozen(tmp_path, weights_layout(Network(model), placement_for(optimizer, mesh)))
    assert alone.keys() == {"embedding"}
    assert alone["embedding"].sharding == like.frozen["embedding"].sharding
    chex.assert_trees_all_equal(in_order(alone["embedding"]), expected)


def test_without_frozen_rows_a_state_and_its_checkpoint_are_as_ever(tmp_path):
    model = small_model("fm", FIELDS, embed_dim=DIM)
    optimizer = create_for(OptimizerSettings(), 10, model, BATCH)
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, create_mesh()))
    assert state.frozen == {}
    first = [FirstVectors(FROZEN, VECTORS, False, "")]
    assert with_first_vectors(state, optimizer, first, create_mesh()).frozen == {}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(
            create_state(Network(model), optimizer, 1, placement_for(optimizer, create_mesh())),
            Progress(),
        )
    layout = weights_layout(Network(model), placement_for(optimizer, create_mesh()))
    assert restore_frozen(tmp_path, layout) == restore_frozen(tmp_path / "none", layout) == {}
    metadata = (tmp_path / "checkpoints/0/rest/_METADATA").read_text()
    assert "opt_state" in metadata
    assert "frozen" not in metadata
