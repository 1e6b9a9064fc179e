import platform

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import MODELS
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.training import compiling
from deepfm_jax.training.compiling import compiler_options
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_score_step, make_train_step
from tests.small_models import small_model

DIMS = (50, 40, 30)
# Wide enough for a library: smaller products are inlined.
WIDE = {"embed_dim": 16, "mlp_dims": (96, 96)}
on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="options are given on x86 alone"
)


def batch():
    rng = np.random.default_rng(0)
    return {
        "ids": np.stack([rng.integers(0, dim, 256) for dim in DIMS], axis=1).astype(np.int32),
        "labels": rng.integers(0, 2, (256, 1)).astype(np.float32),
        "mask": np.ones(256, np.float32),
    }


def compiled(model):
    """The compiled train step of a model on one CPU, and a state for it."""
    mesh = create_mesh(jax.devices("cpu")[:1])
    optimizer = create_optimizer(OptimizerSettings("sgd", learning_rate=0.1), 1, "sparse")
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    return step.lower(state, batch()).compile(), state


def products_by_ynnpack(program):
    lines = program.as_text().splitlines()
    return sum("__ynn_fusion" in line and "dot_general" in line for line in lines)


@on_x86
def test_ynnpack_would_multiply_a_float32_tower_and_does_not(monkeypatch):
    model = small_model("dnn", DIMS, **WIDE)
    ours, _ = compiled(model)
    monkeypatch.setattr(compiling, "_PLAIN_PRODUCTS", {})
    by_default, _ = compiled(model)
    if not products_by_ynnpack(by_default):
        pytest.skip("XLA does not take YNNPACK for this processor")
    assert products_by_ynnpack(ours) == 0


@on_x86
def test_bfloat16_and_attention_are_compiled_as_xla_would():
    assert compiler_options(small_model("dnn", DIMS), "cpu")
    assert compiler_options(small_model("dnn", DIMS, compute_dtype="bfloat16"), "cpu") == {}
    assert compiler_options(small_model("autoint", DIMS), "cpu") == {}


def test_a_step_is_the_same_with_either_library(monkeypatch):
    model = small_model("deepfm", DIMS, **WIDE)
    program, state = compiled(model)
    ours, _ = program(state, batch())
    logits = make_score_step(Network(model))(ours.weights, {"ids": batch()["ids"]})
    monkeypatch.setattr(compiling, "_PLAIN_PRODUCTS", {})
    program, state = compiled(model)
    plain, _ = program(state, batch())
    chex.assert_trees_all_close(ours.params, plain.params, rtol=1e-5, atol=1e-6)
    plain_logits = make_score_step(Network(model))(plain.weights, {"ids": batch()["ids"]})
    chex.assert_trees_all_close(logits, plain_logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", [(0, 10, 2), (0, 11, 0), (0, 11, 0, 1)])
def test_the_versions_that_scatter_slowly_on_gpus_are_reported_once(version):
    compiling.warn_of_slow_scatters.cache_clear()
    with pytest.warns(UserWarning, match=r"jaxlib 0\.1\d\.\d compiles .* upgrade jax to 0\.11\.1"):
        compiling.warn_of_slow_scatters("gpu", version)
    compiling.warn_of_slow_scatters("gpu", version)  # Warnings are errors here.


@pytest.mark.parametrize(
    ("platform_name", "version"),
    [("gpu", (0, 10, 1)), ("gpu", (0, 11, 1)), ("gpu", (0, 12, 0, 1)), ("cpu", (0, 11, 0)),
     ("tpu", (0, 11, 0))],
)  # fmt: skip
def test_other_versions_and_platforms_are_not(platform_name, version):
    compiling.warn_of_slow_scatters.cache_clear()
    compiling.warn_of_slow_scatters(platform_name, version)


def test_an_option_that_this_xla_does_not_have_is_not_passed(monkeypatch):
    monkeypatch.setattr(compiling, "_PLAIN_PRODUCTS", {"xla_cpu_of_another_version": "1"})
    compiling._is_known.cache_clear()
    assert compiler_options(small_model("deepfm", DIMS), "cpu") == {}
    compiling._is_known.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_accelerators_and_other_processors_get_none(name, monkeypatch):
    model = small_model(name, DIMS)
    assert compiler_options(model, "gpu") == compiler_options(model, "tpu") == {}
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert compiler_options(model, "cpu") == {}
