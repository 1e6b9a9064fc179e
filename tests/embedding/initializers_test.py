import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deepfm_jax.embedding.initializers import normal_by_position

ROWS, DIM = 50_000, 16


def drawn(seed, shape=(ROWS, DIM), dtype=jnp.float32, std=1.0):
    init = jax.jit(lambda key: normal_by_position(std, shape[0])(key, shape, dtype))
    return np.asarray(init(jax.random.key(seed)).astype(jnp.float32), np.float64)


@pytest.fixture(scope="module")
def numbers():
    return drawn(0)


def test_numbers_are_normal(numbers):
    assert stats.kstest(numbers.ravel(), "norm").pvalue > 0.001
    assert abs(numbers.mean()) < 4 / np.sqrt(numbers.size)
    assert abs(numbers.std() - 1) < 4 / np.sqrt(2 * numbers.size)
    assert np.isfinite(numbers).all()


def test_columns_and_neighbouring_rows_have_nothing_to_do_with_each_other(numbers):
    # Each correlation has a standard error of 1 / sqrt(ROWS); there are some hundreds of them.
    limit = 5 / np.sqrt(ROWS)
    for x in (numbers, numbers**2 - 1):
        between_columns = np.corrcoef(x.T) - np.eye(DIM)
        assert abs(between_columns).max() < limit
        for lag in (1, 2, 3, 16, 256):
            assert abs((x[:-lag] * x[lag:]).mean(axis=0)).max() < 2 * limit


def test_another_key_gives_other_numbers(numbers):
    other = drawn(1)
    assert abs((numbers * other).mean(axis=0)).max() < 5 / np.sqrt(ROWS)
    chex.assert_trees_all_equal(numbers, drawn(0))


def test_a_row_keeps_its_numbers_in_a_longer_table(numbers):
    chex.assert_trees_all_equal(drawn(0, (2 * ROWS, DIM))[:ROWS], numbers)


def test_the_scale_and_the_dtype_are_those_asked_for(numbers):
    chex.assert_trees_all_close(drawn(0, std=0.01), 0.01 * numbers, rtol=1e-6, atol=0)
    chex.assert_trees_all_close(drawn(0, dtype=jnp.bfloat16), numbers, rtol=2**-8, atol=0)


def test_it_needs_no_memory_beside_the_result():
    init = jax.jit(lambda key: normal_by_position(1.0, ROWS)(key, (ROWS, DIM), jnp.float32))
    memory = init.lower(jax.random.key(0)).compile().memory_analysis()
    assert memory.temp_size_in_bytes < ROWS
