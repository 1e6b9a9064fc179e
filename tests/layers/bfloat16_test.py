import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.layers import MLP
from deepfm_jax.layers.bfloat16 import bfloat16_matmul


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def rounded(array):
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16), np.float64)


def product(left, right):
    """Naive float64 product of operands rounded to bfloat16."""
    left, right = rounded(left), rounded(right)
    out = np.zeros((len(left), right.shape[1]))
    for i in range(len(left)):
        for j in range(right.shape[1]):
            for k in range(len(right)):
                out[i, j] += left[i, k] * right[k, j]
    return out


def test_operands_are_bfloat16_and_sums_float32():
    x, w = drawn(5, 9), drawn(9, 3, seed=1)
    found = jax.jit(bfloat16_matmul)(x, w)
    assert found.dtype == jnp.float32
    chex.assert_trees_all_close(found, product(x, w), rtol=1e-6, atol=1e-6)
    assert np.abs(found - x @ w).max() > 1e-4


def test_gradients_are_products_of_the_same_kind():
    x, w, g = drawn(6, 4), drawn(4, 5, seed=1), drawn(6, 5, seed=2)
    _, pull = jax.vjp(bfloat16_matmul, x, w)
    dx, dw = jax.jit(pull)(g)
    assert dx.dtype == dw.dtype == jnp.float32
    chex.assert_trees_all_close(dx, product(g, w.T), rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(dw, product(x.T, g), rtol=1e-6, atol=1e-6)


def test_forward_mode_is_refused_and_not_wrong():
    x, w = drawn(2, 3), drawn(3, 2, seed=1)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(bfloat16_matmul, (x, w), (x, w))


def test_a_tower_in_bfloat16_has_float32_parameters_and_nearly_the_same_output():
    x = drawn(32, 20)
    plain, fast = MLP((16, 8)), MLP((16, 8), compute_dtype="bfloat16")
    variables = plain.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, fast.init(jax.random.key(0), x)
    )
    a, b = plain.apply(variables, x), fast.apply(variables, x)
    assert b.dtype == jnp.float32
    chex.assert_trees_all_close(a, b, rtol=1e-7, atol=0.05)
    assert np.abs(a - b).max() > 1e-5


def test_another_dtype_is_refused():
    with pytest.raises(UserError, match="compute_dtype='float16' is not one of"):
        MLP((4,), compute_dtype="float16").init(jax.random.key(0), drawn(2, 3))
