import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.layers import factorization_machine
from tests import references


def embeddings(batch=3, fields=5, dim=4, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, (batch, fields, dim)).astype(np.float32)


def exact(e):
    """The identity in float64, whose own error is negligible here; the loop is too slow for it."""
    e = e.astype(np.float64)
    return 0.5 * (np.square(e.sum(axis=1)).sum(axis=1) - np.square(e).sum(axis=(1, 2)))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 4),
    fields=st.integers(1, 7),
    dim=st.integers(1, 6),
    scale=st.sampled_from([1e-4, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_equals_the_explicit_double_sum(batch, fields, dim, scale, seed):
    e = embeddings(batch, fields, dim, seed, scale)
    # The identity subtracts squares: float32 error scales with the sum of squares.
    tolerance = 1e-6 * float(np.square(e.astype(np.float64)).sum()) * fields + 1e-12
    chex.assert_trees_all_close(
        factorization_machine(jnp.asarray(e)), references.fm_pairwise(e), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(("fields", "dim"), [(10, 10), (39, 16), (100, 64)])
@pytest.mark.parametrize("scale", [0.01, 0.3, 3.0])
def test_the_error_among_fields_of_like_size_is_lost_in_the_last_digits(fields, dim, scale):
    e = embeddings(500, fields, dim, scale=scale)
    error = np.asarray(factorization_machine(jnp.asarray(e)), np.float64) - exact(e)
    assert np.abs(error).max() < 5e-7 * np.square(e).sum(axis=(1, 2)).max()
    assert np.sqrt(np.mean(error**2)) < 1e-6 * exact(e).std()


def test_one_field_far_larger_than_the_others_drowns_their_products():
    # The condition that the docstring states, with its figures.
    e = embeddings(2000, 10, 16, scale=1e-3)
    e[:, 0] *= 1e6
    error = np.asarray(factorization_machine(jnp.asarray(e)), np.float64) - exact(e)
    assert 0.3 < np.sqrt(np.mean(error**2)) < 1.3
    assert exact(e).std() == pytest.approx(11.9, rel=0.1)
    assert np.abs(error).max() < 5e-7 * np.square(e).sum(axis=(1, 2)).max()


def test_hand_computed_value():
    # <(1,2),(3,4)> + <(1,2),(5,6)> + <(3,4),(5,6)> = 11 + 17 + 39
    e = jnp.asarray([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    chex.assert_trees_all_equal(factorization_machine(e), jnp.asarray([67.0]))


def test_gradient_of_each_vector_is_the_sum_of_the_others():
    e = embeddings()
    gradient = jax.grad(lambda x: factorization_machine(x).sum())(jnp.asarray(e))
    expected = e.sum(axis=1, keepdims=True) - e
    chex.assert_trees_all_close(gradient, expected, rtol=1e-7, atol=1e-5)
    numeric = references.numeric_gradient(lambda x: references.fm_pairwise(x).sum(), e)
    chex.assert_trees_all_close(gradient, numeric, rtol=1e-7, atol=1e-4)


def test_is_invariant_to_field_order():
    e = embeddings()
    shuffled = e[:, [3, 0, 4, 2, 1]]
    chex.assert_trees_all_close(
        factorization_machine(shuffled), factorization_machine(e), rtol=1e-7, atol=1e-5
    )


def test_one_field_has_no_pair():
    chex.assert_trees_all_close(
        factorization_machine(jnp.asarray(embeddings(fields=1))), np.zeros(3), rtol=1e-7, atol=1e-6
    )


def test_dimensions_do_not_mix():
    # A layer that flattens [B, S * D] would add products across dimensions.
    e = embeddings(dim=6)
    apart = factorization_machine(jnp.asarray(e[..., :2])) + factorization_machine(
        jnp.asarray(e[..., 2:])
    )
    chex.assert_trees_all_close(factorization_machine(jnp.asarray(e)), apart, rtol=1e-7, atol=1e-5)


def test_rows_do_not_mix():
    e = embeddings()
    one_by_one = jnp.concatenate([factorization_machine(jnp.asarray(row[None])) for row in e])
    chex.assert_trees_all_close(
        factorization_machine(jnp.asarray(e)), one_by_one, rtol=1e-7, atol=1e-6
    )
