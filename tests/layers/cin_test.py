import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError
from deepfm_jax.layers import CompressedInteractionNetwork
from tests import references

E = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    fields=st.integers(1, 4),
    dim=st.integers(1, 4),
    widths=st.lists(st.sampled_from([2, 4]), min_size=1, max_size=3),
    split_half=st.booleans(),
)
def test_equals_the_paper_s_sums(fields, dim, widths, split_half):
    e = np.random.default_rng(1).normal(size=(2, fields, dim)).astype(np.float32)
    layer = CompressedInteractionNetwork(tuple(widths), split_half)
    variables = layer.init(jax.random.key(0), e)
    expected = references.cin(variables["params"], e, widths, split_half)
    chex.assert_trees_all_close(layer.apply(variables, e), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("split_half", "maps"), [(True, 3 + 2 + 5), (False, 6 + 4 + 5)])
def test_puts_out_half_of_each_layer_but_the_last_when_split(split_half, maps):
    layer = CompressedInteractionNetwork((6, 4, 5), split_half)
    assert layer.init_with_output(jax.random.key(0), E)[0].shape == (2, maps)


def test_layer_k_is_of_degree_k_plus_one():
    layer = CompressedInteractionNetwork((2, 2), split_half=False)
    variables = layer.init(jax.random.key(0), E)
    once, twice = layer.apply(variables, E), layer.apply(variables, 2 * E)
    chex.assert_trees_all_close(twice[:, :2], 4 * once[:, :2], rtol=1e-5, atol=0)
    chex.assert_trees_all_close(twice[:, 2:], 8 * once[:, 2:], rtol=1e-5, atol=0)


def test_columns_of_the_embedding_do_not_mix():
    # Maps interact vector by vector (Sec. 4.1): permuting D permutes the maps, and their sum stays.
    layer = CompressedInteractionNetwork((4, 2))
    variables = layer.init(jax.random.key(0), E)
    chex.assert_trees_all_close(
        layer.apply(variables, E[:, :, [2, 0, 1]]), layer.apply(variables, E), rtol=1e-4, atol=1e-6
    )


def test_an_odd_layer_cannot_be_split():
    with pytest.raises(UserError, match=r"cin_dims\[0\]=5 is odd"):
        CompressedInteractionNetwork((5, 4)).init(jax.random.key(0), E)
