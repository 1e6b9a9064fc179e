import chex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm_jax.errors import UserError
from deepfm_jax.metrics.calibration import correct_logits


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-4, 1))
def test_correction_is_the_formula_of_the_paper(p, w):
    q = p / (p + (1 - p) / w)
    corrected = correct_logits(np.log(np.array([p / (1 - p)])), w)
    # 1e-9: 1 - p loses digits near 1.
    chex.assert_trees_all_close(1 / (1 + np.exp(-corrected)), np.array([q]), rtol=1e-9, atol=0)


def test_a_sample_of_known_odds_is_corrected_to_those_of_all_examples():
    positives, negatives, w = 30.0, 970.0, 0.1
    sample = np.log(positives / (w * negatives))
    chex.assert_trees_all_close(
        correct_logits(np.array([sample]), w),
        np.array([np.log(positives / negatives)]),
        rtol=1e-14,
        atol=0,
    )


def test_with_all_examples_logits_are_returned_unchanged():
    logits = jnp.asarray([0.1, -3.7], jnp.bfloat16)
    assert correct_logits(logits, 1.0) is logits
    assert correct_logits(logits, 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_out_of_its_range_is_refused(rate):
    with pytest.raises(UserError, match=r"negative_rate=.* must be above 0 and at most 1"):
        correct_logits(np.zeros(2), rate)
