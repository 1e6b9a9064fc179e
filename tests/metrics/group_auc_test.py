import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepfm_jax import UserError
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.metrics.group_auc import group_auc

# Few logits and few groups, so that ties and groups of one class are common; -1 is no group.
ROW = st.tuples(
    st.integers(-4, 4).map(lambda k: k / 4),
    st.booleans(),
    st.sampled_from([0.5, 1, 3]),
    st.integers(-1, 4),
)


def columns(rows):
    logits, labels, weights, groups = zip(*rows, strict=True)
    numbers = (np.array(column, np.float64) for column in (logits, labels, weights))
    return (*numbers, np.array(groups, np.int64))


def naive(logits, labels, weights, groups):
    """Loops over the groups and averages scikit-learn's AUC of each."""
    won = counted = 0.0
    for group in set(groups.tolist()) - {-1}:
        rows = groups == group
        if len(set(labels[rows].tolist())) == 2:
            weight = weights[rows].sum()
            auc = roc_auc_score(labels[rows], logits[rows], sample_weight=weights[rows])
            won, counted = won + weight * auc, counted + weight
    return (won / counted if counted else None), counted / weights.sum()


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(st.lists(ROW, min_size=1, max_size=30))
def test_gauc_is_the_weighted_mean_of_the_groups_aucs(rows):
    expected, coverage = naive(*columns(rows))
    found = group_auc(*columns(rows))
    assert found.coverage == pytest.approx(coverage, abs=1e-12)
    # 1e-12: float64 sums of a few dozen terms.
    assert found.auc == (expected if expected is None else pytest.approx(expected, abs=1e-12))


def test_many_groups_of_random_examples():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 1 << 62, 300)[rng.integers(0, 300, 5000)]
    rows = (
        np.round(rng.normal(0, 1, 5000), 1),
        (rng.random(5000) < 0.2).astype(float),
        rng.random(5000) + 0.1,
        groups,
    )
    expected, coverage = naive(*rows)
    found = group_auc(*rows)
    # 1e-10: running sums over all examples.
    assert found == pytest.approx((expected, coverage), rel=1e-10)


def state(rows):
    logits, labels, weights, groups = columns(rows)
    return BinaryMetrics.from_batch(logits, labels, weights, groups)


ROWS = [
    *[(0.0, 0, 1, 3), (1.0, 1, 1, 3), (2.0, 1, 0, 3), (0.5, 0, 1, 8)],
    *[(0.2, 1, 2, 8), (0.9, 0, 1, 8), (0.2, 1, 1, -1), (4.0, 1, 1, 5)],
]


def test_hand_computed():
    # Group 3 ranks its pair correctly (weight 2), group 8 neither of its pairs (weight 4).
    metrics = state(ROWS).compute()
    assert metrics["gauc"] == pytest.approx(2 / 6, rel=1e-12)
    assert metrics["gauc_coverage"] == pytest.approx(6 / 8, rel=1e-12)


def test_batches_merge_in_any_order():
    parts = [state(ROWS[start : start + 3]) for start in (0, 3, 6)]
    merged = BinaryMetrics.concatenate(parts[::-1])
    assert merged.compute() == pytest.approx(state(ROWS).compute(), rel=1e-12)
    assert BinaryMetrics.empty().merge(parts[0]).groups is not None


def test_examples_without_groups_have_no_gauc():
    logits, labels, weights, _ = columns(ROWS)
    plain = BinaryMetrics.from_batch(logits, labels, weights)
    assert "gauc" not in plain.compute()
    one_class = BinaryMetrics.from_batch(logits, labels, weights, np.arange(8))
    assert "gauc" not in one_class.compute()
    with pytest.raises(UserError, match="some of the examples to merge have groups"):
        plain.merge(state(ROWS))
