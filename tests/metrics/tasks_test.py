import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.metrics import BinaryMetrics, TaskMetrics, flat_metrics

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 2)).astype(np.float32)
LABELS = RNG.integers(0, 2, (40, 2)).astype(np.float32)
MASK = RNG.choice([0.0, 0.5, 2.0], 40)


def test_one_task_has_the_metrics_of_its_examples():
    state = TaskMetrics.from_batch(["a"], LOGITS[:, :1], LABELS[:, :1], MASK)
    expected = BinaryMetrics.from_batch(LOGITS[:, 0], LABELS[:, 0], MASK).compute()
    assert state.compute() == expected
    assert dict(flat_metrics(expected)) == expected


def test_several_tasks_have_their_own_metrics_and_the_mean():
    labels = LABELS.copy()
    labels[::3, 1] = np.nan
    parts = [
        TaskMetrics.from_batch(["a", "b"], LOGITS[part], labels[part], MASK[part])
        for part in (slice(0, 15), slice(15, 40))
    ]
    found = TaskMetrics.concatenate(parts).compute(split="test")
    has_b = ~np.isnan(labels[:, 1])
    a = BinaryMetrics.from_batch(LOGITS[:, 0], labels[:, 0], MASK).compute()
    b = BinaryMetrics.from_batch(LOGITS[has_b, 1], labels[has_b, 1], MASK[has_b]).compute()
    assert found["tasks"] == {"a": pytest.approx(a), "b": pytest.approx(b)}
    assert found["auc"] == pytest.approx((a["auc"] + b["auc"]) / 2)
    assert found["rows"] == a["rows"] > b["rows"]
    flat = dict(flat_metrics(found))
    assert flat["b/logloss"] == pytest.approx(b["logloss"])
    assert "tasks" not in flat


def test_a_task_of_one_class_is_named():
    labels = np.stack([LABELS[:, 0], np.ones(40)], axis=1)
    state = TaskMetrics.from_batch(["a", "b"], LOGITS, labels)
    with pytest.raises(UserError, match="test, label b"):
        state.compute(split="test")
    with pytest.raises(UserError, match="has no examples to evaluate"):
        TaskMetrics.concatenate([]).compute()
