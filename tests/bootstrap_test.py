"""The bootstrap against scikit-learn, against known differences, and against chance itself."""

import chex
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from deepfm_jax.bootstrap import Ranking, Resampled, bootstrap
from deepfm_jax.errors import UserError
from deepfm_jax.metrics import BinaryMetrics

# Few distinct logits, so that many are equal; some rows are not drawn at all.
ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label, count in rows if count}) == 2)


def sample(rows=2000, seed=0):
    """True logits and the labels drawn from them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, rows)
    return truth, (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float64)


def noisy(truth, noise, seeds=1, seed=100):
    """Logits [seeds, rows] of a model that is worse the more noise it has."""
    rng = np.random.default_rng(seed)
    return truth + noise * rng.normal(size=(seeds, truth.size))


@hypothesis.given(ROWS)
def test_auc_of_row_counts_is_scikit_learns_with_ties(rows):
    logits, labels, counts = (np.array(column) for column in zip(*rows, strict=True))
    expected = roc_auc_score(labels, logits, sample_weight=counts)
    # 1e-12: float64 rounding of the reference.
    auc = Ranking(logits.astype(np.float64), labels).auc(counts)
    assert auc == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_auc_of_a_thousand_drawn_rows_is_scikit_learns(decimals):
    truth, labels = sample(rows=1000)
    logits = np.round(truth, decimals)
    rng = np.random.default_rng(1)
    counts = np.bincount(rng.integers(1000, size=1000), minlength=1000)
    expected = roc_auc_score(labels, logits, sample_weight=counts)
    assert Ranking(logits, labels).auc(counts) == pytest.approx(expected, abs=1e-12)


def test_estimates_are_the_metrics_of_the_rows_as_they_are():
    truth, labels = sample()
    logits = noisy(truth, 1.0, seeds=3)
    found = bootstrap({"m": logits}, labels, resamples=2)
    metrics = [BinaryMetrics.from_batch(row, labels).compute() for row in logits]
    for name in ("auc", "logloss"):
        expected = np.mean([of_seed[name] for of_seed in metrics])
        assert found[name]["m"].estimate == pytest.approx(expected, abs=1e-12)


def test_a_draw_is_the_metric_of_the_rows_drawn():
    truth, labels = sample(rows=300)
    logits = noisy(truth, 0.5)
    found = bootstrap({"m": logits}, labels, resamples=3, seed=5)
    rng = np.random.default_rng((5, 0))
    for draw in range(3):
        rows = rng.integers(300, size=300)
        p = 1 / (1 + np.exp(-logits[0, rows]))
        expected_auc = roc_auc_score(labels[rows], p)
        assert found["auc"]["m"].draws[draw] == pytest.approx(expected_auc, abs=1e-12)
        # 1e-10: the reference takes the logarithm of 1 - p.
        expected_loss = log_loss(labels[rows], p)
        assert found["logloss"]["m"].draws[draw] == pytest.approx(expected_loss, rel=1e-10)


def test_losses_of_extreme_logits_are_exact():
    logits, labels = np.array([[1e4, -1e4, 1e4, -1e4]]), np.array([0.0, 1.0, 1.0, 0.0])
    assert bootstrap({"m": logits}, labels, resamples=1)["logloss"]["m"].estimate == 5e3


def test_the_interval_of_a_real_difference_covers_it_and_leaves_zero_out():
    truth, labels = sample(rows=200_000, seed=9)
    expected = (
        BinaryMetrics.from_batch(noisy(truth, 1.0)[0], labels).compute()["auc"]
        - BinaryMetrics.from_batch(truth, labels).compute()["auc"]
    )
    truth, labels = sample()
    found = bootstrap(
        {"good": noisy(truth, 0.0), "bad": noisy(truth, 1.0, seeds=3)}, labels, resamples=200
    )
    difference = found["auc"]["bad"] - found["auc"]["good"]
    low, high = difference.interval()
    assert low < expected < high < 0
    assert low < difference.estimate < high


def test_pairing_narrows_the_interval():
    truth, labels = sample()
    logits = {"a": noisy(truth, 0.2), "b": noisy(truth, 0.2, seed=101)}
    auc = bootstrap(logits, labels, resamples=200)["auc"]
    own, paired = auc["a"].interval(), (auc["a"] - auc["b"]).interval()
    assert paired[1] - paired[0] < 0.5 * (own[1] - own[0])


def test_equal_models_whose_seeds_agree_differ_by_nothing():
    truth, labels = sample()
    logits = np.repeat(noisy(truth, 1.0), 3, axis=0)
    found = bootstrap({"a": logits, "b": logits.copy()}, labels, resamples=50)
    for of_model in found.values():
        difference = of_model["a"] - of_model["b"]
        assert difference.estimate == 0.0
        # The mean of three equal numbers may round.
        assert difference.interval() == pytest.approx((0.0, 0.0), abs=1e-15)


def test_the_chance_of_seeds_widens_the_interval_of_equal_models_about_zero():
    truth, labels = sample()
    logits = noisy(truth, 1.0, seeds=3)
    found = bootstrap({"a": logits, "b": logits.copy()}, labels, resamples=200)["auc"]
    low, high = (found["a"] - found["b"]).interval()
    assert low < 0 < high
    spread = np.std([roc_auc_score(labels, row) for row in logits])
    assert high - low > spread


def test_the_same_seed_gives_the_same_draws_whatever_models_follow():
    truth, labels = sample()
    a, b = noisy(truth, 1.0, seeds=2), noisy(truth, 2.0, seeds=2)
    alone = bootstrap({"a": a}, labels, resamples=20, seed=3)["auc"]["a"].draws
    beside = bootstrap({"a": a, "b": b}, labels, resamples=20, seed=3)["auc"]["a"].draws
    other = bootstrap({"a": a}, labels, resamples=20, seed=4)["auc"]["a"].draws
    chex.assert_trees_all_equal(alone, beside)
    assert not np.array_equal(alone, other)


def test_a_class_of_one_row_is_in_every_draw():
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    draws = bootstrap({"m": np.array([[0.0, 1, -1, 2]])}, labels, resamples=100)["auc"]["m"].draws
    assert np.isfinite(draws).all()


def test_the_interval_holds_its_share_of_the_draws():
    low, high = Resampled(0.5, np.arange(101) / 100).interval(0.9)
    assert (low, high) == pytest.approx((0.05, 0.95), abs=1e-12)


def test_what_cannot_be_resampled_is_refused():
    labels = np.array([0.0, 1.0])
    with pytest.raises(UserError, match="not all finite"):
        bootstrap({"m": np.array([[0.0, np.nan]])}, labels)
    with pytest.raises(UserError, match="AUC needs both"):
        bootstrap({"m": np.zeros((1, 2))}, np.ones(2))
