import chex
import jax
import numpy as np
import pytest

from deepfm_jax.layers import InteractingLayer
from tests import references

E = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 5), (2, 3)])
def test_equals_the_paper_s_loops(heads, head_dim, residual, scaled):
    layer = InteractingLayer(heads, head_dim, residual, scaled)
    params = layer.init(jax.random.key(0), E)["params"]
    out, found = layer.apply({"params": params}, E, mutable=["intermediates"])
    expected, attention = references.interacting(params, E, residual, scaled)
    chex.assert_trees_all_close(out, expected, rtol=1e-4, atol=1e-5)
    (sown,) = found["intermediates"]["attention"]
    chex.assert_trees_all_close(sown, attention, rtol=1e-4, atol=1e-5)


def test_permuting_fields_permutes_the_output():
    layer = InteractingLayer(2, 3)
    variables = layer.init(jax.random.key(0), E)
    order = [3, 1, 0, 2]
    chex.assert_trees_all_close(
        layer.apply(variables, E[:, order]),
        layer.apply(variables, E)[:, order],
        rtol=1e-4,
        atol=1e-6,
    )


def test_large_scores_do_not_overflow():
    layer = InteractingLayer(1, 3)
    variables = layer.init(jax.random.key(0), E)
    assert np.isfinite(layer.apply(variables, 1e4 * E)).all()


def test_each_head_starts_at_the_scale_of_a_matrix_of_its_own():
    layer = InteractingLayer(8, 64)
    e = np.zeros((1, 2, 64), np.float32)
    kernel = layer.init(jax.random.key(0), e)["params"]["query_kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (64 + 64)), rel=0.03)
