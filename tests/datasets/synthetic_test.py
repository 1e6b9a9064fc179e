import numpy as np
import pyarrow as pa
import pytest

from deepfm_jax import Categorical, Numeric, UserError
from deepfm_jax.datasets.simulator import PAIR_GROUPS, PRODUCTS, SCHEMA, Simulator, numeric_basis
from deepfm_jax.metrics import BinaryMetrics

ROWS = 20_000


@pytest.fixture(scope="module")
def simulator():
    return Simulator(seed=3)


@pytest.fixture(scope="module")
def simulated(simulator):
    return simulator.simulate(ROWS, stream=0)


def test_rows_are_shaped_like_criteos(simulated):
    table = simulated.table
    assert table.column_names == [column.name for column in SCHEMA.columns]
    assert sum(isinstance(column, Numeric) for column in SCHEMA.columns) == 13
    assert sum(isinstance(column, Categorical) for column in SCHEMA.columns) == 26
    values = [v for v in table["C3"].to_pylist() if v is not None]
    assert all(len(value) == 8 and int(value, 16) >= 0 for value in values)
    assert set(table["label"].to_pylist()) == {0.0, 1.0}
    assert table["C22"].null_count > 0.7 * ROWS
    assert table["I1"].null_count > 0.4 * ROWS
    assert table["C1"].null_count == 0


def test_equal_arguments_give_equal_rows_and_streams_differ(simulator, simulated):
    assert Simulator(seed=3).simulate(ROWS, stream=0).table.equals(simulated.table)
    assert not simulator.simulate(ROWS, stream=1).table.equals(simulated.table)
    assert not Simulator(seed=4).simulate(ROWS, stream=0).table.equals(simulated.table)


def test_frequencies_follow_zipf(simulated):
    counts = sorted(
        (entry["counts"] for entry in simulated.table["C3"].value_counts().to_pylist()
         if entry["values"] is not None), reverse=True,
    )  # fmt: skip
    total = sum(counts)
    expected = [np.log((k + 2) / (k + 1)) / np.log(20_001) for k in range(5)]
    np.testing.assert_allclose(np.array(counts[:5]) / total, expected, rtol=0.1)
    assert counts.count(1) > 1000  # a long tail of values seen once


def test_held_out_streams_have_unseen_values(simulator, simulated):
    seen = set(simulated.table["C12"].to_pylist())
    new = [v for v in simulator.simulate(5000, stream=1).table["C12"].to_pylist() if v not in seen]
    assert len(new) > 100


def test_labels_are_drawn_from_the_logits(simulated):
    labels = simulated.table["label"].to_numpy()
    p = 1 / (1 + np.exp(-simulated.logits))
    assert abs(labels.mean() - 0.25) < 0.02
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (low <= p) & (p < high)
        error = labels[inside].mean() - p[inside].mean()
        assert abs(error) < 5 * np.sqrt(p[inside].mean() / inside.sum())


def test_the_logit_is_the_documented_sum(simulator, simulated):
    truth = simulator.truth
    first_rows = simulated.table.slice(0, 40).to_pylist()
    for row, logit in zip(first_rows, simulated.logits[:40], strict=True):
        effect = {name: _effect(truth, name, row[name]) for name in truth.effects}
        expected = truth.bias + sum(e[0] for e in effect.values())
        for group in PAIR_GROUPS:
            for i in range(len(group)):
                for j in range(i + 1, len(group)):
                    expected += np.dot(effect[group[i]][1:5], effect[group[j]][1:5])
        for coefficient, fields in zip(truth.coefficients, PRODUCTS, strict=True):
            expected += coefficient * np.prod([effect[name][5] for name in fields])
        assert logit == pytest.approx(expected, abs=1e-9)


def _effect(truth, name, cell):
    effects = truth.effects[name]
    if cell is None:
        return effects[-1]
    if name in truth.values:
        return effects[truth.values[name].to_pylist().index(cell)]
    basis = numeric_basis(name, np.array([cell]))[0]
    return sum(b * e for b, e in zip(basis, effects[:-1], strict=True))


def test_no_noisy_score_beats_the_truth(simulated):
    labels = simulated.table["label"].to_numpy()
    rng = np.random.default_rng(0)

    def auc(logits):
        return BinaryMetrics.from_batch(logits, labels).compute(split="test")["auc"]

    oracle = auc(simulated.logits)
    assert oracle > 0.8
    for noise in (0.3, 1.0):
        assert auc(simulated.logits + rng.normal(0, noise, ROWS)) < oracle


def test_variances_are_as_requested():
    only_first = Simulator(seed=1, first_order=0.9, pairwise=0.0, higher_order=0.0)
    assert only_first.simulate(ROWS, stream=0).logits.var() == pytest.approx(0.9, rel=0.1)
    all_three = Simulator(seed=1, first_order=0.5, pairwise=1.0, higher_order=0.5)
    assert all_three.simulate(ROWS, stream=0).logits.var() == pytest.approx(2.0, rel=0.25)


def test_a_missing_cell_is_null(simulated):
    assert simulated.table["I1"].type == pa.float64()
    assert not np.isnan(simulated.table["I1"].drop_null().to_numpy()).any()


@pytest.mark.parametrize("options", [{"pairwise": -1.0}, {"positive_rate": 1.0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Simulator(**options)


@pytest.mark.parametrize(("rows", "stream"), [(0, 0), (1, -1)])
def test_impossible_requests_are_refused(simulator, rows, stream):
    with pytest.raises(UserError, match="rows"):
        simulator.simulate(rows, stream=stream)
