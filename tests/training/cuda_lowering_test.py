"""Programs for a GPU, lowered on a machine without one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import MODELS, Feature
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import tables
from deepfm_jax.features import as_features, by_slot, slot_counts
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.state import abstract_state, create_state, placement_for
from deepfm_jax.training.step import make_train_step
from tests.small_models import small_model

DIMS = (30, Feature(20, slots=3), Feature(20, shared_with=1), 10)
BATCH = 24


@pytest.fixture(autouse=True)
def _sorted_as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(tables, "needs_scratch", lambda platform: False)


def operations(operation):
    """An MLIR operation and all operations nested in it."""
    yield operation
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield from operations(inner.operation)


def atomic_additions(lowered):
    """The results of all scattered float additions whose indices may repeat."""
    found = []
    for operation in operations(lowered.compiler_ir("stablehlo").operation):
        if operation.name != "stablehlo.scatter":
            continue
        adds = any(inner.name == "stablehlo.add" for inner in operations(operation))
        is_float = str(operation.results[0].type.element_type) in ("f16", "bf16", "f32", "f64")
        if adds and is_float and str(operation.attributes["unique_indices"]) == "false":
            found.append(str(operation.results[0].type))
    return found


def batch():
    width = sum(slot_counts(as_features(DIMS)))
    return {
        "ids": np.zeros((BATCH, width), np.int32),
        "values": np.ones((BATCH, width), np.float32),
        "labels": np.zeros((BATCH, 1), np.float32),
        "mask": np.ones(BATCH, np.float32),
    }


def lowered(name, path, devices=1, platform="cuda", **changes):
    """The train step of a model, lowered for ``platform``."""
    mesh = create_mesh(jax.devices()[:devices])
    model = small_model(name, DIMS, **changes)
    settings = OptimizerSettings(
        clip_norm=1.0, rows=RowSettings(name="adam"), l2=Penalties(table=1e-3)
    )
    optimizer = create_optimizer(settings, 1, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    state = abstract_state(Network(model), optimizer, placement_for(optimizer, mesh))
    return step.trace(state, batch()).lower(lowering_platforms=(platform,))


def test_the_check_sees_an_addition_whose_places_repeat():
    def add(array, places, values):
        return array.at[places].add(values)

    arguments = (jnp.zeros(4), jnp.zeros(3, jnp.int32), jnp.ones(3))
    program = jax.jit(add).trace(*arguments).lower(lowering_platforms=("cuda",))
    assert atomic_additions(program) == ["tensor<4xf32>"]
    # A CPU's program of the same step has them, so their absence below is specific to the GPU.
    assert atomic_additions(lowered("deepfm", "sparse", platform="cpu"))


@pytest.mark.parametrize("path", ["sparse", "dense"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_model_adds_atomically(name, path):
    assert atomic_additions(lowered(name, path)) == []


def test_a_table_in_bfloat16_is_not_added_to_atomically():
    assert atomic_additions(lowered("deepfm", "sparse", table_dtype="bfloat16")) == []


def test_eight_devices_do_not_add_atomically():
    assert atomic_additions(lowered("deepfm", "sparse", devices=8)) == []


def test_a_module_in_a_loop_of_its_own_does_not_add_atomically():
    model = small_model("deepfm", DIMS)
    params = model.init(jax.random.key(0), batch()["ids"], batch()["values"])["params"]

    def loss(params, ids, values):
        return model.apply({"params": params}, ids, values).sum()

    arguments = (params, batch()["ids"], batch()["values"])
    program = jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=("cuda",))
    assert atomic_additions(program) == []


@pytest.mark.parametrize(("path", "devices"), [("sparse", 1), ("sparse", 8), ("dense", 1)])
def test_the_program_of_a_gpu_trains_as_a_cpus_does(path, devices, monkeypatch):
    def trained():
        mesh = create_mesh(jax.devices()[:devices])
        model = small_model("deepfm", DIMS)
        settings = OptimizerSettings("adagrad", learning_rate=0.05, clip_norm=1.0)
        optimizer = create_optimizer(settings, 1, path)
        state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
        step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
        rng = np.random.default_rng(0)
        features = as_features(DIMS)
        tops = by_slot(features, np.array([feature.rows for feature in features]))
        for _ in range(20):
            ids = rng.integers(0, np.minimum(tops, 6), (BATCH, len(tops))).astype(np.int32)
            labels = rng.integers(0, 2, (BATCH, 1)).astype(np.float32)
            state, _ = step(state, {**batch(), "ids": ids, "labels": labels})
        return state.params

    def as_on_a_gpu(*arguments, cuda, **_):
        return cuda(*arguments)

    expected = trained()
    monkeypatch.setattr(jax.lax, "platform_dependent", as_on_a_gpu)
    chex.assert_trees_all_close(trained(), expected, atol=1e-5)
