import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax.heads import OneTask
from tests import references

LOGITS = jnp.asarray([[0.3], [-2.0], [1.5], [4.0]])
LABELS = jnp.asarray([[1.0], [0.0], [0.0], [1.0]])


def test_loss_is_the_mean_logloss_of_the_unmasked_examples():
    loss = OneTask().loss(LOGITS, LABELS, jnp.asarray([1.0, 1.0, 1.0, 0.0]))
    assert float(loss) == pytest.approx(references.logloss([0.3, -2.0, 1.5], [1, 0, 0]), rel=1e-6)


def test_the_mask_may_weight_the_examples():
    loss = OneTask().loss(LOGITS, LABELS, jnp.asarray([2.0, 1.0, 1.0, 0.0]))
    rows = [references.logloss([z], [y]) for z, y in ((0.3, 1), (-2.0, 0), (1.5, 0))]
    assert float(loss) == pytest.approx((2 * rows[0] + rows[1] + rows[2]) / 4, rel=1e-6)


def test_gradient_is_the_residual_over_the_number_of_examples():
    mask = jnp.asarray([1.0, 0.0, 1.0, 1.0])
    gradient = jax.grad(OneTask().loss)(LOGITS, LABELS, mask)
    probability = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    chex.assert_trees_all_close(
        gradient, (probability - LABELS) * mask[:, None] / 3, rtol=1e-5, atol=1e-7
    )


def test_probabilities_are_sigmoids():
    chex.assert_trees_all_close(
        OneTask().probabilities(LOGITS),
        1 / (1 + np.exp(-np.asarray(LOGITS, np.float64))),
        rtol=1e-12,
        atol=0,
    )


def test_different_logits_give_different_probabilities():
    logits = np.float32(12.0) + np.arange(4, dtype=np.float32) * np.float32(1e-6)
    found = OneTask().probabilities(logits[:, None])[:, 0]
    assert len(set(logits.tolist())) == len(set(found.tolist())) > 1
    assert len(set(np.asarray(jax.nn.sigmoid(logits)).tolist())) == 1
