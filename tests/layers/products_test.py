import chex
import jax
import numpy as np
import pytest

from deepfm_jax.errors import UserError
from deepfm_jax.layers import KernelProducts, inner_products, outer_product_of_sum
from tests import references

E = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


def test_inner_products_equal_the_loop_over_pairs():
    chex.assert_trees_all_close(
        inner_products(E), references.inner_products(E), rtol=1e-5, atol=1e-5
    )


def test_inner_products_of_a_row_add_up_to_the_fm_term():
    chex.assert_trees_all_close(
        inner_products(E).sum(axis=1), references.fm_pairwise(E), rtol=1e-5, atol=1e-5
    )


def test_the_superposition_equals_the_sum_over_all_pairs():
    expected = references.outer_product_of_sum(E)
    chex.assert_trees_all_close(outer_product_of_sum(E), expected, rtol=1e-5, atol=1e-5)


def test_kernel_products_equal_the_loop():
    layer = KernelProducts()
    variables = layer.init(jax.random.key(0), E)
    expected = references.kernel_products(variables["params"]["kernel"], E)
    chex.assert_trees_all_close(layer.apply(variables, E), expected, rtol=1e-5, atol=1e-5)


def test_kernel_products_with_identities_are_inner_products():
    kernel = np.broadcast_to(np.eye(4, dtype=np.float32), (10, 4, 4))
    products = KernelProducts().apply({"params": {"kernel": kernel}}, E)
    chex.assert_trees_all_close(products, inner_products(E), rtol=1e-5, atol=1e-5)


def test_one_slot_has_no_pair():
    assert inner_products(E[:, :1]).shape == (3, 0)
    with pytest.raises(UserError, match="need pairs of fields, but there is only one"):
        KernelProducts().init(jax.random.key(0), E[:, :1])
