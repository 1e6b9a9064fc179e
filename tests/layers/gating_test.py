import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.layers import BilinearFusion, FeatureGate
from tests import references
from tests.layers.mlp_test import randomised

RNG = np.random.default_rng(0)
E, CONTEXT = (RNG.normal(size=(3, n)).astype(np.float32) for n in (6, 2))


@pytest.mark.parametrize("context", [None, CONTEXT])
def test_the_gate_equals_the_loop(context):
    gate = FeatureGate((4,))
    params = randomised(gate.init(jax.random.key(0), E, context))["params"]
    expected = references.feature_gate(params, E, context)
    chex.assert_trees_all_close(
        gate.apply({"params": params}, E, context), expected, rtol=1e-5, atol=0
    )


def test_a_learnt_context_gates_all_rows_alike():
    gate = FeatureGate((4,))
    variables = gate.init(jax.random.key(0), E)
    ratios = gate.apply(variables, E) / E
    chex.assert_trees_all_close(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-5, atol=0)


@pytest.mark.parametrize("heads", [1, 2])
def test_the_fusion_equals_the_loop(heads):
    first, second = (RNG.normal(size=(3, n)).astype(np.float32) for n in (4, 6))
    fusion = BilinearFusion(heads)
    params = randomised(fusion.init(jax.random.key(0), first, second))["params"]
    expected = references.bilinear_fusion(params, first, second)
    chex.assert_trees_all_close(
        fusion.apply({"params": params}, first, second), expected, rtol=1e-5, atol=0
    )


def test_heads_are_the_diagonal_blocks_of_one_matrix():
    first, second = (RNG.normal(size=(3, n)).astype(np.float32) for n in (4, 6))
    params = BilinearFusion(2).init(jax.random.key(0), first, second)["params"]
    whole = jnp.zeros((1, 4, 6)).at[0, :2, :3].set(params["kernel"][0])
    whole = whole.at[0, 2:, 3:].set(params["kernel"][1])
    chex.assert_trees_all_close(
        BilinearFusion(2).apply({"params": params}, first, second),
        BilinearFusion(1).apply({"params": {**params, "kernel": whole}}, first, second),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("heads", [1, 5])
def test_products_start_as_one_linear_layer_of_all_of_them(heads):
    first, second = np.ones((1, 100), np.float32), np.ones((1, 50), np.float32)
    kernel = BilinearFusion(heads).init(jax.random.key(0), first, second)["params"]["kernel"]
    products = 100 * 50 / heads
    chex.assert_trees_all_close(kernel.std(), np.sqrt(2 / (products + 1)), rtol=0.05, atol=0)


def test_heads_divide_both_streams():
    with pytest.raises(UserError, match=r"heads=4 does not divide a stream's width 6"):
        BilinearFusion(4).init(jax.random.key(0), E, E)
