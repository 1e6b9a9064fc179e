import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax.layers import CrossNetwork, LowRankCrossNetwork
from tests import references
from tests.layers.mlp_test import randomised

X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_cross_network_equals_the_loop(layers):
    network = CrossNetwork(layers)
    params = randomised(network.init(jax.random.key(0), X))["params"]
    expected = references.cross_network(params, X)
    chex.assert_trees_all_close(network.apply({"params": params}, X), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("experts", [1, 3])
def test_the_low_rank_network_equals_the_loop(experts):
    network = LowRankCrossNetwork(layers=2, rank=2, experts=experts)
    params = randomised(network.init(jax.random.key(0), X))["params"]
    expected = references.low_rank_cross_network(params, X)
    chex.assert_trees_all_close(
        network.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5
    )


def test_kernels_start_glorot_normal_and_biases_at_zero():
    width, rank, experts = 150, 80, 70
    network = LowRankCrossNetwork(layers=1, rank=rank, experts=experts)
    params = network.init(jax.random.key(0), np.ones((1, width), np.float32))["params"]
    fans = {"v_0_kernel": (width, rank), "c_0_kernel": (rank, rank), "u_0_kernel": (rank, width)}
    found = {**{name: params[name] for name in fans}, "gate": params["gate_0"].pop("kernel")}
    for name, (fan_in, fan_out) in {**fans, "gate": (width, experts)}.items():
        expected = np.sqrt(2 / (fan_in + fan_out))
        assert np.std(found[name]) == pytest.approx(expected, rel=0.03), name
    assert not params["gate_0"]  # Without a bias.
    chex.assert_trees_all_equal(params["bias_0"], np.zeros(width))


@pytest.mark.parametrize("network", [CrossNetwork(2), LowRankCrossNetwork(2, rank=2)])
def test_with_zero_weights_the_input_passes(network):
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), X))
    chex.assert_trees_all_equal(network.apply(params, X), X)


def test_one_layer_is_of_second_order_in_its_input():
    network = CrossNetwork(1)
    params = network.init(jax.random.key(0), X)  # whose bias is zero
    first = network.apply(params, X) - X
    chex.assert_trees_all_close(
        network.apply(params, 3 * X) - 3 * X, 9 * first, rtol=1e-4, atol=1e-5
    )
