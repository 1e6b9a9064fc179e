import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from deepfm_jax.heads.losses import binary_cross_entropy, masked_mean


def rows():
    rng = np.random.default_rng(0)
    return rng.normal(0, 4, 64).astype(np.float32), (rng.random(64) < 0.3).astype(np.float32)


def sigmoid64(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def test_loss_agrees_with_naive_float64():
    logits, labels = rows()
    p = sigmoid64(logits)
    expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    actual = binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    # 2e-6 relative: a few float32 roundings; 1e-7 absolute if the loss is nearly 0.
    chex.assert_trees_all_close(np.asarray(actual, np.float64), expected, rtol=2e-6, atol=1e-7)


def test_gradient_is_sigmoid_minus_label():
    logits, labels = rows()
    gradient = jax.grad(lambda z: jnp.sum(binary_cross_entropy(z, jnp.asarray(labels))))(
        jnp.asarray(logits)
    )
    # 1e-6 absolute on numbers in (-1, 1): float32.
    chex.assert_trees_all_close(np.asarray(gradient), sigmoid64(logits) - labels, atol=1e-6)


def test_loss_and_gradient_are_exact_at_extreme_logits():
    logits = jnp.array([1e4, -1e4, 1e4, -1e4])
    labels = jnp.array([0, 1, 1, 0])
    loss, pullback = jax.vjp(lambda z: binary_cross_entropy(z, labels), logits)
    chex.assert_trees_all_equal(loss, jnp.array([1e4, 1e4, 0.0, 0.0]))
    chex.assert_trees_all_equal(pullback(jnp.ones(4))[0], jnp.array([1.0, -1.0, 0.0, 0.0]))


def test_a_column_of_labels_is_refused_rather_than_broadcast():
    # The shape checker of the tests raises first; without it the function raises ValueError.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="labels"):
        binary_cross_entropy(jnp.zeros(3), jnp.zeros((3, 1)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bool_])
def test_masked_mean_is_the_mean_of_the_kept_examples(dtype):
    mask = jnp.array([1, 0, 1, 0], dtype)
    chex.assert_trees_all_equal(masked_mean(jnp.array([1.0, 50.0, 4.0, -9.0]), mask), 2.5)


def test_masked_mean_weighs_by_fractions_that_sum_below_one():
    mean = masked_mean(jnp.array([1.0, 4.0]), jnp.array([0.25, 0.5]))
    # 1e-6 relative: float32.
    chex.assert_trees_all_close(mean, jnp.float32(3.0), rtol=1e-6)


def test_masked_mean_never_reads_padding():
    values = jnp.array([2.0, jnp.nan, jnp.inf])
    mean, gradient = jax.value_and_grad(masked_mean)(values, jnp.array([1.0, 0.0, 0.0]))
    chex.assert_trees_all_equal(mean, jnp.float32(2.0))
    chex.assert_trees_all_equal(gradient, jnp.array([1.0, 0.0, 0.0]))


def test_a_batch_of_padding_has_mean_zero_and_gradient_zero():
    def loss(logits):
        return masked_mean(binary_cross_entropy(logits, jnp.ones(3)), jnp.zeros(3))

    value, gradient = jax.value_and_grad(loss)(jnp.array([1.0, -2.0, 1e4]))
    chex.assert_trees_all_equal(value, jnp.float32(0.0))
    chex.assert_trees_all_equal(gradient, jnp.zeros(3))


def test_loss_of_a_padded_batch_has_the_gradient_of_its_real_examples():
    logits, labels = (jnp.asarray(array) for array in rows())
    mask = (jnp.arange(64) < 40).astype(jnp.float32)
    gradient = jax.grad(lambda z: masked_mean(binary_cross_entropy(z, labels), mask))(logits)
    expected = np.where(np.arange(64) < 40, (sigmoid64(logits) - np.asarray(labels)) / 40, 0.0)
    # 1e-7 absolute on numbers below 1/40: float32.
    chex.assert_trees_all_close(np.asarray(gradient), expected, atol=1e-7)
