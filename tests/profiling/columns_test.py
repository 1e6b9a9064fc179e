"""Reports on raw columns, against loops over the rows in float64."""

import datetime
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from deepfm_jax import Categorical, Label, Numeric, Schema, Timestamp
from deepfm_jax.coders.buckets import log2_floor
from deepfm_jax.profiling import counts as counting
from deepfm_jax.profiling.columns import report_column
from deepfm_jax.profiling.counts import count_split
from deepfm_jax.profiling.drift import stability_index
from deepfm_jax.profiling.groups import wilson_interval

SCHEMA = Schema(
    (
        Label("y"),
        Categorical("c", min_count=2, max_size=3),
        Categorical("h", dtype="integer", hash_buckets=5),
        Numeric("n", transform="quantile"),
        Numeric("lf", transform="log2_floor", min_count=3),
        Timestamp("t"),
    )
)
TYPES = {"y": pa.float32(), "c": pa.string(), "h": pa.int64(), "t": pa.int64()}


def typed(rows):
    """Rows, lists of y, c, h, n, lf and t, as the readers type them."""
    names = [column.name for column in SCHEMA.columns]
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    return pa.table(
        {
            name: pa.array(column, TYPES.get(name, pa.float64()))
            for name, column in zip(names, cells, strict=True)
        }
    )


def made_up(count, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        missing = rng.random(5) < 0.15
        cells = (
            chr(97 + min(int(rng.zipf(1.6)), 20)),
            int(rng.integers(-3, 9)),
            float(np.round(rng.normal(0, 3), int(rng.integers(0, 3)))),
            float(rng.integers(-2, 40)),
            int(rng.integers(-200_000, 900_000)),
        )
        given = [None if gone else cell for cell, gone in zip(cells, missing, strict=True)]
        rows.append([float(rng.random() < 0.3), *given])
    return rows


TRAIN, VALID = made_up(700, 0), made_up(300, 1)


def reports(train=TRAIN, valid=VALID, chunk=97):
    """A report for each column; the rows pass in chunks."""
    splits = {
        split: count_split(
            [typed(rows[start : start + chunk]) for start in range(0, len(rows), chunk)], SCHEMA
        )
        for split, rows in (("train", train), ("valid", valid))
    }
    return {c.name: report_column(c, splits) for c in SCHEMA.columns if c.name != "y"}


@pytest.fixture(scope="module")
def found():
    return reports()


def cells_of(name, rows=TRAIN, present=True):
    """(cell, label) of each row that has a value."""
    place = [column.name for column in SCHEMA.columns].index(name)
    return [(row[place], row[0]) for row in rows if row[place] is not None or not present]


def check(group, labels, total):
    """A group against the labels of its rows."""
    assert (group.rows, group.positives) == (len(labels), sum(labels))
    assert group.share == pytest.approx(len(labels) / total)
    if labels:
        assert group.rate == pytest.approx(sum(labels) / len(labels))
        assert group.low <= group.rate <= group.high


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 10**6), share=st.floats(0, 1))
def test_intervals_are_wilsons(rows, share):
    positives = round(rows * share)
    expected = binomtest(positives, rows).proportion_ci(0.95, method="wilson")
    assert wilson_interval(positives, rows) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


@pytest.mark.parametrize("name", ["c", "h", "n", "lf"])
def test_values_rows_and_rates_are_those_of_a_loop(found, name):
    report = found[name]
    cells = cells_of(name)
    counts = Counter(cell for cell, _ in cells)
    assert report.rows == len(TRAIN)
    assert report.distinct == len(counts)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    assert len(report.top) == len(ordered)
    for group, (value, _) in zip(report.top, ordered, strict=True):
        assert float(group.name) == value if name != "c" else group.name == value
        check(group, [label for cell, label in cells if cell == value], len(TRAIN))
    gone = [label for cell, label in cells_of(name, present=False) if cell is None]
    assert gone
    check(report.missing, gone, len(TRAIN))


def test_numbers_are_those_of_a_loop(found):
    numbers = found["n"].numbers
    cells = np.array([cell for cell, _ in cells_of("n")])
    assert numbers.mean == pytest.approx(cells.mean())
    assert numbers.std == pytest.approx(cells.std())
    assert numbers.negative == pytest.approx((cells < 0).mean())
    assert numbers.zero == pytest.approx((cells == 0).mean())
    expected = np.quantile(cells, np.arange(101) / 100, method="inverted_cdf")
    np.testing.assert_array_equal(numbers.percentiles, expected)


@pytest.mark.parametrize("name", ["n", "lf"])
def test_rates_by_tenths_are_those_of_a_loop(found, name):
    numbers = found[name].numbers
    cells = cells_of(name)
    assert 5 < len(numbers.buckets) <= 10
    assert sum(group.rows for group in numbers.buckets) == len(cells)
    for bucket, group in enumerate(numbers.buckets):
        inside = [
            (cell, label)
            for cell, label in cells
            if sum(edge <= cell for edge in numbers.edges) == bucket
        ]
        check(group, [label for _, label in inside], len(cells))
        ends = (min(cell for cell, _ in inside), max(cell for cell, _ in inside))
        assert tuple(map(float, group.name.split(" to "))) == pytest.approx(
            tuple(dict.fromkeys(ends))
        )
        # A tenth, but for the rows of the value at its edge.
        assert len(inside) <= 0.1 * len(cells) + 2 * max(Counter(c for c, _ in cells).values())


def test_a_number_that_is_always_the_same_is_one_bucket():
    rows = [[float(i % 2), "a", 1, 4.5, 4.0, 0] for i in range(6)]
    numbers = reports(rows, rows)["n"].numbers
    assert [(group.name, group.rows) for group in numbers.buckets] == [("4.5", 6)]
    assert numbers.edges == ()
    assert numbers.std == 0


def test_coverage_is_that_of_a_loop(found):
    cells = [cell for cell, _ in cells_of("c")]
    counts = Counter(cells)
    for each in (found["c"].coverage, *found["c"].coverages):
        kept = sorted((v for v in counts if counts[v] >= each.min_count), key=lambda v: -counts[v])
        kept = kept[:3]  # max_size
        assert each.values == len(kept)
        assert each.share == pytest.approx(sum(counts[v] for v in kept) / len(cells))
    assert found["c"].coverage.min_count == 2
    assert [each.min_count for each in found["c"].coverages] == [1, 2, 5, 10]


def test_buckets_of_log2_floor_are_what_is_covered(found):
    buckets = Counter(log2_floor(np.array([cell for cell, _ in cells_of("lf")])).tolist())
    kept = {bucket: rows for bucket, rows in buckets.items() if rows >= 3}
    assert found["lf"].coverage.values == len(kept)
    assert found["lf"].coverage.share == pytest.approx(sum(kept.values()) / sum(buckets.values()))


def test_hashed_values_and_numbers_have_no_vocabulary_to_cover(found):
    assert found["h"].coverage is found["n"].coverage is None
    assert found["h"].drift["valid"].covered is None


def test_the_rank_curve_is_that_of_a_loop(found):
    rows = sorted(Counter(cell for cell, _ in cells_of("c")).values(), reverse=True)
    assert found["c"].ranks[0][0] == 1
    assert found["c"].ranks[-1] == (len(rows), 1.0)
    for k, share in found["c"].ranks:
        assert share == pytest.approx(sum(rows[:k]) / sum(rows))


def test_hours_and_days_are_those_of_a_loop(found):
    report = found["t"]
    times = [
        (datetime.datetime.fromtimestamp(cell, datetime.UTC), label)
        for cell, label in cells_of("t")
    ]
    assert len(report.hours) == 24
    for hour, group in enumerate(report.hours):
        assert group.name == f"{hour:02}"
        check(group, [label for time, label in times if time.hour == hour], len(TRAIN))
    dates = sorted({time.date() for time, _ in times})
    assert dates[0].year == 1969
    assert [group.name for group in report.days] == [date.isoformat() for date in dates]
    for date, group in zip(dates, report.days, strict=True):
        check(group, [label for time, label in times if time.date() == date], len(TRAIN))
    ends = [min(times)[0], max(times)[0]]
    assert [report.first, report.last] == [f"{end:%Y-%m-%d %H:%M:%S}" for end in ends]
    assert report.top == ()


def psi(train, other):
    """The index over bins that the rows of both name."""
    bins = set(train) | set(other)
    total = 0.0
    for each in bins:
        p = (train.count(each) + 0.5) / (len(train) + 0.5 * len(bins))
        q = (other.count(each) + 0.5) / (len(other) + 0.5 * len(bins))
        total += (q - p) * math.log(q / p)
    return total


def test_drift_of_values_is_that_of_a_loop(found):
    drift = found["c"].drift["valid"]
    train, other = (
        [cell for cell, _ in cells_of("c", rows, present=False)] for rows in (TRAIN, VALID)
    )
    assert drift.missing == pytest.approx(other.count(None) / len(other))
    present = [cell for cell in other if cell is not None]
    unseen = [cell for cell in present if cell not in train]
    assert drift.unseen == pytest.approx(len(unseen) / len(present))
    counts = Counter(cell for cell in train if cell is not None)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    assert drift.covered == pytest.approx(
        sum(cell in ordered[:3] for cell in present) / len(present)
    )
    top = ordered[:20]
    binned = [
        [cell if cell is None or cell in top else "other" for cell in cells]
        for cells in (train, other)
    ]
    assert drift.psi == pytest.approx(psi(*binned))


def test_drift_of_numbers_and_times_is_that_of_a_loop(found):
    drift, numbers = found["n"].drift["valid"], found["n"].numbers
    train, other = (
        [cell for cell, _ in cells_of("n", rows, present=False)] for rows in (TRAIN, VALID)
    )
    binned = [
        [None if c is None else sum(edge <= c for edge in numbers.edges) for c in cells]
        for cells in (train, other)
    ]
    assert drift.psi == pytest.approx(psi(*binned))
    low, high = (end(c for c in train if c is not None) for end in (min, max))
    present = [cell for cell in other if cell is not None]
    assert drift.unseen == pytest.approx(sum(not low <= c <= high for c in present) / len(present))
    hours = [
        [None if c is None else c // 3600 % 24 for c, _ in cells_of("t", rows, present=False)]
        for rows in (TRAIN, VALID)
    ]
    assert found["t"].drift["valid"].psi == pytest.approx(psi(*hours))
    assert found["t"].drift["valid"].unseen is None


def test_the_index_is_what_chance_gives_where_nothing_has_changed():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(22))
    drawn = [
        stability_index(rng.multinomial(5000, shares), rng.multinomial(1000, shares))
        for _ in range(200)
    ]
    assert np.mean([value for value, _ in drawn]) == pytest.approx(drawn[0][1], rel=0.1)
    shifted, _ = stability_index(rng.multinomial(5000, shares), rng.multinomial(1000, shares[::-1]))
    assert shifted > 0.25


@pytest.mark.parametrize("chunk", [5, 700])
def test_a_report_does_not_depend_on_how_rows_are_chunked(found, chunk):
    assert reports(chunk=chunk) == found


def test_what_is_held_does_not_grow_with_rows(monkeypatch, found):
    monkeypatch.setattr(counting, "_WAITING", 50)
    counts = counting.ValueCounts(SCHEMA.columns[1])
    most = 0
    for _ in range(200):
        counts.add(pa.array(["a", "b", None] * 10), np.ones(30, np.int64))
        most = max(most, sum(part.num_rows for part in counts._waiting))
    assert most <= 50
    assert counts.table().to_pydict() == {
        "value": ["a", "b", None],
        "rows": [2000] * 3,
        "labelled": [2000] * 3,
        "positives": [2000] * 3,
    }
    assert reports(chunk=10) == found


def test_cells_of_several_values_count_each_of_them():
    counts = counting.ValueCounts(Categorical("genres"))
    cells = pa.array([["a", "b"], [], None, ["a"]], pa.list_(pa.string()))
    counts.add(cells, np.array([1, 1, 0, np.nan], np.float32))
    assert counts.table().to_pydict() == {
        "value": ["a", "b", None],
        "rows": [2, 1, 2],
        "labelled": [1, 1, 2],
        "positives": [1, 1, 1],
    }


def test_rates_are_those_of_the_rows_that_have_the_label():
    labels = pa.array([1, 0, None, 1, None], pa.float32())
    column = Categorical("genre")
    table = pa.table({"click": labels, "genre": ["a", "a", "a", "b", "c"]})
    found = counting.count_split([table], Schema((Label("click"), Label("like"), column)))
    assert (found.rows, found.labelled, found.positives) == (5, 3, 2)
    groups = {group.name: group for group in report_column(column, {"train": found}).top}
    assert [(groups[name].rows, groups[name].rate) for name in "abc"] == [
        (3, 0.5),
        (1, 1.0),
        (1, None),
    ]
    assert groups["a"].share == 0.6
