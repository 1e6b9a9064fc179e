import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm_jax.encoding.crosses import cross_ids

MASK = 2**64 - 1


def reference(parts, buckets):
    """The id of one row, in Python's integers."""
    if 0 in parts:
        return 0
    h = 0
    for part in parts:
        z = (h + 0x9E3779B97F4A7C15 + part) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        h = z ^ (z >> 31)
    return 1 + h % buckets


def ids_of(rows, buckets):
    return cross_ids(np.array(rows, np.int32), buckets)


def rows_of(parts):
    """Rows of ids as an encoder makes them, among them 0 and the largest."""
    one = st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1))
    return st.lists(st.tuples(*[one] * parts), min_size=1, max_size=20)


@given(st.integers(2, 4).flatmap(rows_of), st.integers(1, 2**31 - 1))
def test_it_is_the_reference_in_its_range(rows, buckets):
    ids = ids_of(rows, buckets)
    assert ids.dtype == np.int32
    assert ids.tolist() == [reference(row, buckets) for row in rows]
    assert all(1 <= i <= buckets for i, row in zip(ids.tolist(), rows, strict=True) if 0 not in row)


@given(rows_of(3), st.integers(1, 10**6))
def test_equal_parts_give_equal_ids_wherever_they_stand(rows, buckets):
    ids = ids_of(rows, buckets)
    np.testing.assert_array_equal(ids_of(rows[::-1], buckets), ids[::-1])
    np.testing.assert_array_equal(ids_of(rows * 2, buckets), np.tile(ids, 2))


def test_one_part_gives_the_first_output_of_splitmix64():
    # Steele et al.'s generator seeded with 1234567, as its other implementations give it.
    largest = 2**31 - 1
    assert ids_of([[1234567]], largest).tolist() == [1 + 6457827717110365317 % largest]


def test_ids_are_what_prepared_data_hold():
    # Data sets and tables on disk rest on these numbers.
    rows = [[1, 1], [1, 2], [2, 1], [2**31 - 1, 7], [3, 0], [0, 0]]
    assert ids_of(rows, 100_000).tolist() == [90916, 81228, 29606, 9691, 0, 0]


@pytest.mark.parametrize("row", [[0, 5, 5], [5, 0, 5], [5, 5, 0], [0, 0, 0]])
def test_a_part_without_a_value_leaves_none_to_the_cross(row):
    assert ids_of([row], 10).tolist() == [0]


@pytest.mark.parametrize("buckets", [1000, 1024, 997])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_ids_spread_evenly(buckets, position):
    # All pairs of small ids, as frequent values have them, and a third part that never changes.
    first, second = np.meshgrid(np.arange(1, 201), np.arange(1, 201))
    pairs = [first.ravel(), second.ravel()]
    pairs.insert(position, np.full(first.size, 3))
    ids = cross_ids(np.stack(pairs, axis=1).astype(np.int32), buckets)
    expected = first.size / buckets
    chi_square = float(((np.bincount(ids, minlength=buckets + 1)[1:] - expected) ** 2).sum())
    chi_square /= expected
    # Of buckets - 1 degrees of freedom; 4 standard deviations either way.
    assert abs(chi_square - (buckets - 1)) < 4 * math.sqrt(2 * (buckets - 1))
