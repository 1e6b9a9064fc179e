import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.embedding.rounding import round_stochastically, round_to_nearest

FLOATS = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(FLOATS, st.integers(0, 9))
def test_a_value_goes_to_one_of_its_two_neighbours(value, seed):
    rounded = round_stochastically(jax.random.key(seed), jnp.full(64, value, jnp.float32))
    bits = int(np.float32(value).view(np.uint32)) & 0xFFFF0000
    down = np.uint32(bits).view(np.float32)
    up = np.uint32(min(bits + 0x10000, 0xFF7F0000 if value < 0 else 0x7F7F0000)).view(np.float32)
    assert set(np.asarray(rounded, np.float32).tolist()) <= {float(down), float(up)}


@pytest.mark.parametrize("value", [1.001, -0.3, 3e-5])
def test_the_mean_is_the_value(value):
    count = 200_000
    rounded = round_stochastically(jax.random.key(0), jnp.full(count, value, jnp.float32))
    gap = abs(value) * 2.0**-7  # the most that neighbours are apart
    mean = np.asarray(rounded, np.float64).mean()
    assert abs(mean - np.float32(value)) < 4 * gap / 2 / np.sqrt(count)


def test_values_of_bfloat16_stay():
    exact = jnp.asarray([0.0, 1.0, -2.5, 2.0**100], jnp.float32)
    chex.assert_trees_all_equal(
        round_stochastically(jax.random.key(1), exact).astype(jnp.float32), exact
    )


def test_infinities_and_nan_stay():
    odd = jnp.asarray([np.inf, -np.inf, np.nan, 3.4e38], jnp.float32)
    rounded = np.asarray(round_stochastically(jax.random.key(0), odd), np.float32)
    assert rounded[0] == np.inf
    assert rounded[1] == -np.inf
    assert np.isnan(rounded[2])


def test_to_the_nearest_is_what_a_conversion_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    edges = [0x7F800000, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F7FFFFF, 0x3F808000]
    values = jnp.asarray(np.append(bits, np.array(edges, np.uint32)).view(np.float32))
    found, expected = round_to_nearest(values), values.astype(jnp.bfloat16)
    chex.assert_trees_all_equal(found.astype(jnp.float32), expected.astype(jnp.float32))
