import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.layers import MLP
from tests import references


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)


def randomised(variables, seed=0):
    """Every array drawn anew, so that no zero bias or unit scale hides a mistake."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (
            jnp.asarray(rng.uniform(0.2, 1.0, x.shape) * rng.choice([-1, 1], x.shape), x.dtype)
            if x.ndim == 2
            else jnp.asarray(rng.uniform(0.2, 1.0, x.shape), x.dtype)
        ),
        variables,
    )


@pytest.mark.parametrize("widths", [(), (4,), (7, 3)])
def test_equals_the_loop_over_layers(inputs, widths):
    mlp = MLP(widths)
    params = randomised(mlp.init(jax.random.key(0), inputs))["params"]
    out = mlp.apply({"params": params}, inputs)
    chex.assert_shape(out, (6, 1))
    chex.assert_trees_all_close(out[:, 0], references.tower(params, inputs), rtol=2e-6, atol=2e-6)


def test_batch_norm_stands_before_the_relu(inputs):
    mlp = MLP((4, 3), batch_norm=True)
    variables = randomised(mlp.init(jax.random.key(0), inputs))
    expected = references.tower(variables["params"], inputs, batch_stats=variables["batch_stats"])
    chex.assert_trees_all_close(mlp.apply(variables, inputs)[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_moves_its_statistics_only_in_training(inputs):
    mlp = MLP((4,), batch_norm=True)
    variables = mlp.init(jax.random.key(0), inputs)
    _, same = mlp.apply(variables, inputs, mutable=["batch_stats"])
    chex.assert_trees_all_equal(same["batch_stats"], variables["batch_stats"])
    _, moved = mlp.apply(variables, inputs, train=True, mutable=["batch_stats"])
    hidden = np.stack([references.affine(variables["params"]["dense_0"], x) for x in inputs])
    chex.assert_trees_all_close(
        moved["batch_stats"]["batch_norm_0"]["mean"], 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6
    )
    chex.assert_trees_all_close(
        moved["batch_stats"]["batch_norm_0"]["var"], 0.9 + 0.1 * hidden.var(0), rtol=1e-4, atol=0
    )


def test_batch_norm_of_one_training_row_gives_every_row_the_same_output(inputs):
    mlp = MLP((4,), batch_norm=True)
    variables = randomised(mlp.init(jax.random.key(0), inputs))
    outputs = [
        mlp.apply(variables, row[None], train=True, mutable=["batch_stats"])[0] for row in inputs
    ]
    chex.assert_trees_all_close(outputs, [outputs[0]] * 6, rtol=1e-6, atol=0)


def test_dropout_drops_its_share_and_scales_the_rest():
    # One wide layer with weights 1 and inputs 1: the output counts the units that stayed.
    mlp = MLP((10_000,), dropout=0.2)
    x = jnp.ones((1, 1))
    params = jax.tree.map(jnp.ones_like, mlp.init(jax.random.key(0), x))["params"]
    params["dense_0"]["bias"] *= 0
    params["out"]["bias"] *= 0
    out = mlp.apply({"params": params}, x, train=True, rngs={"dropout": jax.random.key(1)})
    stayed = float(out[0, 0]) * 0.8 / 10_000
    assert abs(stayed - 0.8) < 5 * np.sqrt(0.2 * 0.8 / 10_000)
    assert float(mlp.apply({"params": params}, x)[0, 0]) == pytest.approx(10_000)


def test_gradient_equals_finite_differences(inputs):
    mlp = MLP((4, 3))
    params = randomised(mlp.init(jax.random.key(0), inputs))["params"]
    gradient = jax.grad(lambda p: mlp.apply({"params": p}, inputs).sum())(params)

    def total(kernel):
        changed = {**params, "dense_0": {**params["dense_0"], "kernel": kernel}}
        return references.tower(changed, inputs).sum()

    numeric = references.numeric_gradient(total, params["dense_0"]["kernel"])
    chex.assert_trees_all_close(gradient["dense_0"]["kernel"], numeric, rtol=1e-4, atol=1e-4)


def test_an_activation_that_does_not_exist_is_reported(inputs):
    with pytest.raises(UserError, match="activation='rlu' is not one of"):
        MLP((3,), activation="rlu").init(jax.random.key(0), inputs)
