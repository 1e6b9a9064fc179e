"""The bootstrap against scikit-learn, known differences and its nominal error rate."""

import chex
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import log_loss, roc_auc_score

from deepfm_jax.errors import UserError
from deepfm_jax.evaluation.bootstrap import Ranking, Resampled, bootstrap, seed_draws
from deepfm_jax.metrics import BinaryMetrics

# Few distinct logits, so that many tie; some examples are not drawn at all.
ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label, count in rows if count}) == 2)


def sample(rows=2000, seed=0):
    """True logits and the labels drawn from them."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, rows)
    return truth, (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float64)


def noisy(truth, noise, seeds=1, seed=100):
    """Logits [seeds, examples] of a model; more noise makes it worse."""
    rng = np.random.default_rng(seed)
    return truth + noise * rng.normal(size=(seeds, truth.size))


@hypothesis.given(ROWS)
def test_auc_of_example_counts_is_scikit_learns_with_ties(rows):
    logits, labels, counts = (np.array(column) for column in zip(*rows, strict=True))
    expected = roc_auc_score(labels, logits, sample_weight=counts)
    # 1e-12: float64 rounding of the reference.
    auc = Ranking(logits.astype(np.float64), labels).auc(counts)
    assert auc == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_auc_of_a_thousand_drawn_examples_is_scikit_learns(decimals):
    truth, labels = sample(rows=1000)
    logits = np.round(truth, decimals)
    rng = np.random.default_rng(1)
    counts = np.bincount(rng.integers(1000, size=1000), minlength=1000)
    expected = roc_auc_score(labels, logits, sample_weight=counts)
    assert Ranking(logits, labels).auc(counts) == pytest.approx(expected, abs=1e-12)


def test_estimates_are_the_metrics_of_the_original_examples():
    truth, labels = sample()
    logits = noisy(truth, 1.0, seeds=3)
    found = bootstrap({"m": logits}, labels, resamples=2)
    metrics = [BinaryMetrics.from_batch(row, labels).compute() for row in logits]
    for name in ("auc", "logloss"):
        expected = np.mean([of_seed[name] for of_seed in metrics])
        assert found[name]["m"].estimate == pytest.approx(expected, abs=1e-12)


def test_a_resample_is_the_metric_of_the_drawn_examples():
    truth, labels = sample(rows=300)
    logits = noisy(truth, 0.5)
    found = bootstrap({"m": logits}, labels, resamples=3, seed=5)
    rng = np.random.default_rng((5, 0))
    for draw in range(3):
        rows = rng.integers(300, size=300)
        p = 1 / (1 + np.exp(-logits[0, rows]))
        expected_auc = roc_auc_score(labels[rows], p)
        assert found["auc"]["m"].by_rows[draw] == pytest.approx(expected_auc, abs=1e-12)
        # 1e-10: the reference takes the logarithm of 1 - p.
        expected_loss = log_loss(labels[rows], p)
        assert found["logloss"]["m"].by_rows[draw] == pytest.approx(expected_loss, rel=1e-10)


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
        # The mean of three equal numbers may be rounded.
        assert difference.interval() == pytest.approx((0.0, 0.0), abs=1e-15)


def test_the_chance_of_seeds_widens_the_interval_of_equal_models_about_zero():
    truth, labels = sample()
    logits = noisy(truth, 1.0, seeds=3)
    found = bootstrap({"a": logits, "b": logits.copy()}, labels, resamples=200)["auc"]
    low, high = (found["a"] - found["b"]).interval()
    assert low < 0 < high
    spread = np.std([roc_auc_score(labels, row) for row in logits])
    assert high - low > spread


def test_the_interval_of_agreeing_seeds_is_that_of_one_seed():
    truth, labels = sample()
    one = noisy(truth, 1.0)
    found = bootstrap({"m": one}, labels, resamples=100)
    agreeing = bootstrap({"m": np.repeat(one, 3, axis=0)}, labels, resamples=100)
    for metric in ("auc", "logloss"):
        np.testing.assert_array_equal(found[metric]["m"].by_seeds, np.zeros(100))
        # The mean of three equal numbers may be rounded.
        expected = pytest.approx(found[metric]["m"].interval(), abs=1e-14)
        assert agreeing[metric]["m"].interval() == expected


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_drawn_seeds_have_the_variance_of_a_mean_over_seeds(seeds):
    metrics = np.random.default_rng(2).normal(0.8, 0.01, seeds)
    draws = seed_draws(metrics, 200_000, np.random.default_rng(3))
    expected = metrics.var(ddof=1) / seeds
    # 2%: about six standard errors of the variance of 200,000 draws.
    assert np.mean(draws**2) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 1.0), (3, 0.3), (3, 0.0), (5, 1.0)])
def test_equal_models_separate_as_rarely_as_the_level_says(seeds, spread):
    """Only seeds vary, and one model's spread is ``spread`` times that of the other."""
    rng = np.random.default_rng(4)
    cases, resamples, separated = 1500, 400, 0

    def model(metrics):
        mean, variance = metrics.mean(), (metrics.var(ddof=1) / seeds, seeds - 1)
        by_rows, by_seeds = np.full(resamples, mean), seed_draws(metrics, resamples, rng)
        return Resampled(mean, by_rows, by_seeds, (variance,))

    for _ in range(cases):
        difference = model(rng.normal(size=seeds)) - model(spread * rng.normal(size=seeds))
        low, high = difference.interval()
        separated += low > 0 or high < 0
    assert 0.02 < separated / cases < 0.09


def test_few_seeds_widen_the_interval_by_the_quantiles_of_student_and_welch():
    draws = np.linspace(-1, 1, 1001)
    none = np.zeros(1001)

    def end(*variances):
        return Resampled(0.0, none, draws, variances).interval()[1] / 0.95

    assert end() == pytest.approx(1)
    normal = scipy.stats.norm.ppf(0.975)
    for variances, freedom in (
        (((0.5, 2),), 2),
        (((0.5, 2), (0.5, 2)), 4),
        (((0.5, 2), (0.0, 2)), 2),
        (((1e-200, 2), (2e-200, 3)), 9 / (1 / 2 + 4 / 3)),
    ):
        assert end(*variances) == pytest.approx(scipy.stats.t.ppf(0.975, freedom) / normal)


def test_the_difference_of_two_models_has_the_variances_of_both():
    truth, labels = sample()
    logits = {"a": noisy(truth, 1.0, seeds=3), "b": noisy(truth, 0.5, seeds=2)}
    auc = bootstrap(logits, labels, resamples=10)["auc"]
    difference = auc["a"] - auc["b"]
    expected = [
        (np.var([roc_auc_score(labels, row) for row in rows], ddof=1) / len(rows), len(rows) - 1)
        for rows in logits.values()
    ]
    assert difference.seed_variances == pytest.approx(np.array(expected), rel=1e-9)
    np.testing.assert_array_equal(difference.by_seeds, auc["a"].by_seeds - auc["b"].by_seeds)


def test_the_same_seed_gives_the_same_draws_whatever_models_follow():
    truth, labels = sample()
    a, b = noisy(truth, 1.0, seeds=2), noisy(truth, 2.0, seeds=2)
    alone = bootstrap({"a": a}, labels, resamples=20, seed=3)["auc"]["a"]
    beside = bootstrap({"a": a, "b": b}, labels, resamples=20, seed=3)["auc"]["a"]
    other = bootstrap({"a": a}, labels, resamples=20, seed=4)["auc"]["a"]
    for part in ("by_rows", "by_seeds"):
        chex.assert_trees_all_equal(getattr(alone, part), getattr(beside, part))
        assert not np.array_equal(getattr(alone, part), getattr(other, part))


def test_a_class_of_one_example_is_in_every_resample():
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    found = bootstrap({"m": np.array([[0.0, 1, -1, 2]])}, labels, resamples=100)
    assert np.isfinite(found["auc"]["m"].by_rows).all()


def test_the_interval_contains_its_share_of_the_draws():
    low, high = Resampled(0.5, np.arange(101) / 100, np.zeros(101)).interval(0.9)
    assert (low, high) == pytest.approx((0.05, 0.95), abs=1e-12)


def test_nonfinite_logits_and_single_classes_are_refused():
    labels = np.array([0.0, 1.0])
    with pytest.raises(UserError, match="not all finite"):
        bootstrap({"m": np.array([[0.0, np.nan]])}, labels)
    with pytest.raises(UserError, match="AUC needs both"):
        bootstrap({"m": np.zeros((1, 2))}, np.ones(2))
