import functools

import chex
import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from deepfm_jax.errors import UserError
from deepfm_jax.metrics import BinaryMetrics, oracle_coverage

# Few distinct logits, so that ties are common; quarters are exact in binary.
ROW = st.tuples(
    st.integers(-6, 6).map(lambda k: k / 4), st.booleans(), st.sampled_from([0.5, 1, 3])
)
ROWS = st.lists(ROW, min_size=2, max_size=25).filter(lambda rows: len({r[1] for r in rows}) == 2)


def state_of(rows):
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 3)
    return BinaryMetrics.from_batch(table[:, 0], table[:, 1], table[:, 2])


def random_state(seed, rows=200):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(-1, 2, rows), 1)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    return BinaryMetrics.from_batch(logits, labels, rng.integers(1, 4, rows))


def assert_metrics_close(a, b):
    """1e-12 relative: only the order of float64 sums may differ."""
    assert a.keys() == b.keys()
    for key in a:
        assert a[key] == pytest.approx(b[key], rel=1e-12, abs=1e-15), key


@hypothesis.given(ROWS)
def test_auc_is_the_weighted_share_of_ordered_pairs_with_ties_half(rows):
    won = pairs = 0.0
    for z_pos, y_pos, w_pos in rows:
        for z_neg, y_neg, w_neg in rows:
            if y_pos and not y_neg:
                pairs += w_pos * w_neg
                won += w_pos * w_neg * ((z_pos > z_neg) + 0.5 * (z_pos == z_neg))
    # 1e-12: float64 sums of at most 25 * 25 terms.
    assert state_of(rows).compute()["auc"] == pytest.approx(won / pairs, abs=1e-12)


def test_auc_separates_logits_whose_probabilities_round_to_one():
    state = BinaryMetrics.from_batch(np.array([50.0, 60.0]), np.array([0, 1]), np.ones(2))
    assert np.all(state.probabilities() == 1.0)
    assert state.compute()["auc"] == 1.0


def test_average_precision_of_a_hand_computed_ranking():
    # Ranked labels 1, 0, 1: precision 1 at the first positive and 2/3 at the second.
    state = BinaryMetrics.from_batch(np.array([3.0, 2.0, 1.0]), np.array([1, 0, 1]), np.ones(3))
    assert state.compute()["pr_auc"] == pytest.approx((1 + 2 / 3) / 2, rel=1e-12)


def test_integer_weights_are_repeated_examples():
    state = random_state(0)
    times = state.weights.astype(int)
    repeated = BinaryMetrics.from_batch(
        np.repeat(state.logits, times), np.repeat(state.labels, times), np.ones(times.sum())
    )
    weighted, expanded = state.compute(), repeated.compute()
    assert weighted.pop("rows") == 200
    assert expanded.pop("rows") == times.sum()
    assert_metrics_close(weighted, expanded)


def test_merging_is_commutative():
    a, b = random_state(1), random_state(2)
    assert_metrics_close(a.merge(b).compute(), b.merge(a).compute())


def test_merging_is_associative():
    a, b, c = (random_state(seed) for seed in (1, 2, 3))
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert left.logits.size == 600
    chex.assert_trees_all_equal(
        (left.logits, left.labels, left.weights), (right.logits, right.labels, right.weights)
    )


def test_the_empty_state_is_neutral():
    state = random_state(4)
    assert_metrics_close(state.merge(BinaryMetrics.empty()).compute(), state.compute())
    assert BinaryMetrics.concatenate([]).logits.size == 0


def test_concatenation_of_many_is_repeated_merging():
    states = [random_state(seed, rows=30) for seed in range(5)]
    merged = functools.reduce(BinaryMetrics.merge, states)
    assert_metrics_close(BinaryMetrics.concatenate(states).compute(), merged.compute())


def test_auc_of_a_merge_is_not_the_mean_of_the_parts():
    part = BinaryMetrics.from_batch(np.array([0.0, 1.0]), np.array([0, 1]), np.ones(2))
    shifted = BinaryMetrics.from_batch(np.array([2.0, 3.0]), np.array([0, 1]), np.ones(2))
    # Each part ranks perfectly; of the 4 pairs in the merge, (1, 2) is out of order.
    assert part.merge(shifted).compute()["auc"] == pytest.approx(0.75, rel=1e-12)


def test_padding_has_no_influence():
    state = random_state(5, rows=64)
    padding = np.array([np.nan, np.inf, 1e30, -7.0])
    padded = BinaryMetrics.from_batch(
        np.concatenate([padding, state.logits]),
        np.concatenate([[-1.0, 5.0, np.nan, 1.0], state.labels]),
        np.concatenate([np.zeros(4), state.weights]),
    )
    assert padded.compute() == state.compute()
    assert padded.compute()["rows"] == 64


def test_without_a_mask_every_example_counts_once():
    state = BinaryMetrics.from_batch(np.array([0.5, -1.0, 2.0]), np.array([1, 0, 1]))
    chex.assert_trees_all_equal(state.weights, np.ones(3))
    chex.assert_trees_all_equal(state.logits, np.array([0.5, -1.0, 2.0]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_device_arrays_of_low_precision_become_float64(dtype):
    logits = jnp.array([0.5, -1.0, 2.0], dtype)
    state = BinaryMetrics.from_batch(logits, jnp.array([1, 0, 1]), jnp.array([True, True, False]))
    chex.assert_trees_all_equal(state.logits, np.array([0.5, -1.0]))
    assert state.logits.dtype == state.labels.dtype == state.weights.dtype == np.float64


def test_logloss_agrees_with_scikit_learn_on_moderate_logits():
    state = random_state(6)
    expected = log_loss(state.labels, state.probabilities(), sample_weight=state.weights)
    # 1e-10: the reference takes the logarithm of 1 - p, which loses digits near p = 1.
    assert state.compute()["logloss"] == pytest.approx(expected, rel=1e-10)


def test_logloss_is_exact_at_extreme_logits():
    state = BinaryMetrics.from_batch(
        np.array([1e4, -1e4, 1e4, -1e4]), np.array([0, 1, 1, 0]), np.ones(4)
    )
    # Two examples lose 1e4 nats each and two lose exp(-1e4) = 0.
    assert state.compute()["logloss"] == 5e3


def test_normalized_entropy_of_the_base_rate_predictor_is_one():
    labels = np.array([1.0] * 3 + [0.0] * 17)
    base_rate_logit = np.full(20, np.log(3 / 17))
    metrics = BinaryMetrics.from_batch(base_rate_logit, labels, np.ones(20)).compute()
    assert metrics["normalized_entropy"] == pytest.approx(1.0, rel=1e-12)
    assert metrics["positive_rate"] == pytest.approx(0.15, rel=1e-12)
    assert metrics["calibration"] == pytest.approx(1.0, rel=1e-12)
    assert metrics["auc"] == 0.5


def logit(p):
    return np.log(np.asarray(p) / (1 - np.asarray(p)))


def test_calibration_is_predicted_over_observed_positives():
    state = BinaryMetrics.from_batch(
        logit([0.2, 0.5, 0.8]), np.array([0, 0, 1]), np.array([1.0, 2.0, 1.0])
    )
    # (0.2 + 2 * 0.5 + 0.8) / 1
    assert state.compute()["calibration"] == pytest.approx(2.0, rel=1e-12)


def test_reliability_of_two_hand_computed_bins():
    state = BinaryMetrics.from_batch(
        logit([0.7, 0.1, 0.9, 0.3]), np.array([0, 0, 1, 1]), np.ones(4)
    )
    curve = state.reliability(bins=2)
    chex.assert_trees_all_close(curve.prediction, np.array([0.2, 0.8]), rtol=1e-12, atol=0)
    chex.assert_trees_all_close(curve.observed, np.array([0.5, 0.5]), rtol=1e-12, atol=0)
    chex.assert_trees_all_close(curve.count, np.array([2, 2]), rtol=0, atol=0)
    chex.assert_trees_all_close(curve.standard_error, np.sqrt([0.125, 0.125]), rtol=1e-12, atol=0)
    # Both bins are off by 0.3.
    assert curve.expected_calibration_error == pytest.approx(0.3, rel=1e-12)


def test_calibration_error_weighs_bins_by_their_mass():
    # Groups of mass 3 (all predicted 0.25, one positive) and 1 (predicted 0.9, positive).
    state = BinaryMetrics.from_batch(
        logit([0.25, 0.25, 0.25, 0.9]), np.array([0, 0, 1, 1]), np.ones(4)
    )
    expected = 0.75 * (1 / 3 - 0.25) + 0.25 * (1 - 0.9)
    error = state.compute()["expected_calibration_error"]
    assert error == pytest.approx(expected, rel=1e-12)


def test_examples_of_equal_prediction_share_a_bin_whatever_their_order():
    labels = np.array([1.0] * 5 + [0.0] * 5)
    curve = BinaryMetrics.from_batch(np.zeros(10), labels, np.ones(10)).reliability(bins=5)
    chex.assert_trees_all_equal(curve.count, np.array([10.0]))
    assert curve.expected_calibration_error == 0.0


def test_bins_of_distinct_predictions_hold_equal_mass():
    rng = np.random.default_rng(7)
    logits = rng.normal(size=1000)
    curve = BinaryMetrics.from_batch(logits, rng.random(1000) < 0.5, np.ones(1000)).reliability()
    chex.assert_trees_all_equal(curve.count, np.full(20, 50.0))
    assert np.all(np.diff(curve.prediction) > 0)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused_with_split_and_count(label):
    state = BinaryMetrics.from_batch(np.zeros(120), np.full(120, label), np.ones(120))
    message = (
        f"split 'valid': all 120 labels are {label}; AUC and normalized entropy need both classes"
    )
    with pytest.raises(UserError) as error:
        state.compute(split="valid")
    assert str(error.value) == message


def test_an_empty_split_is_refused_by_name():
    with pytest.raises(UserError, match="split 'test' has no examples"):
        BinaryMetrics.from_batch(np.zeros(3), np.ones(3), np.zeros(3)).compute(split="test")


def test_logits_that_are_not_finite_are_counted():
    logits = np.zeros(120)
    logits[[3, 50, 70]] = [np.nan, np.inf, -np.inf]
    state = BinaryMetrics.from_batch(logits, np.arange(120) % 2, np.ones(120))
    with pytest.raises(UserError, match="3 of 120 logits of split 'valid' are not finite"):
        state.compute(split="valid")


def test_a_label_other_than_zero_and_one_is_named():
    with pytest.raises(UserError, match=r"label 2 is neither 0 nor 1 \(1 of 3 labels\)"):
        BinaryMetrics.from_batch(np.zeros(3), np.array([0, 2, 1]), np.ones(3))


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="negative or non-finite weight"):
        BinaryMetrics.from_batch(np.zeros(2), np.array([0, 1]), np.array([1.0, -1.0]))


def test_oracle_coverage_runs_from_the_base_rate_to_the_oracle():
    oracle = {"auc": 0.9, "logloss": 0.3, "positive_rate": 0.5}
    base = {"auc": 0.5, "logloss": np.log(2), "positive_rate": 0.5}
    half = {"auc": 0.7, "logloss": (np.log(2) + 0.3) / 2, "positive_rate": 0.5}
    for model, expected in ((base, 0.0), (half, 0.5), (oracle, 1.0)):
        # 1e-12: float64 rounding.
        covered = oracle_coverage(model, oracle)
        assert covered == pytest.approx({"auc": expected, "logloss": expected}, abs=1e-12)


def test_oracle_coverage_refuses_different_examples_and_a_useless_oracle():
    oracle = {"auc": 0.9, "logloss": 0.3, "positive_rate": 0.5}
    with pytest.raises(UserError, match="evaluate both on the same examples"):
        oracle_coverage(oracle | {"positive_rate": 0.4}, oracle)
    with pytest.raises(UserError, match="no better than the base rate"):
        oracle_coverage(oracle, oracle | {"auc": 0.5})
