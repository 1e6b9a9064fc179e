"""Fields of several slots, and fields that share the rows of another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm_jax import Feature, UserError
from deepfm_jax.embedding import table_layout
from deepfm_jax.features import as_features, by_slot, dense_size, slot_counts, total_rows

DIMS = (4, Feature(6, 3), 5, Feature(6, 2, shared_with=1))


def first_rows(dims):
    return table_layout(as_features(dims), 4, True).spaces[0].first_rows


def test_a_number_is_a_field_of_one_slot_with_its_own_rows():
    assert as_features((4, 7)) == (Feature(4), Feature(7))
    assert slot_counts(as_features(DIMS)) == (1, 3, 1, 2)


def test_shared_rows_count_once():
    assert total_rows(as_features(DIMS)) == 15
    np.testing.assert_array_equal(first_rows(DIMS), [0, 4, 10, 4])


def test_the_owner_may_come_later():
    dims = (Feature(6, shared_with=2), 3, 6)
    assert total_rows(as_features(dims)) == 9
    np.testing.assert_array_equal(first_rows(dims), [3, 0, 3])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=6))
def test_the_slots_of_a_field_are_adjacent(fields):
    dims = [Feature(rows, slots) for rows, slots in fields]
    expected = [index for index, (_, slots) in enumerate(fields) for _ in range(slots)]
    np.testing.assert_array_equal(by_slot(dims, np.arange(len(dims))), expected)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((), "at least one row"),
        ((3, 0), "at least one row"),
        ((Feature(3, 0),), r"\(and slot\) for each field"),
        ((3, Feature(4, shared_with=0)), r"field 1 \(4 rows\) shares the rows of field 0.* has 3"),
        ((3, Feature(3, shared_with=2)), "shares the rows of field 2, which does not exist"),
        ((3, Feature(3, shared_with=-1)), "which does not exist"),
        (
            (3, Feature(3, shared_with=0), Feature(3, shared_with=1)),
            "field 2.* has no rows of its own",
        ),
        ((2**31 - 1, 1), "raise min_count"),
        ((Feature(3, size=2),), "at least one row"),
        ((Feature(3, dim=-1),), "at least one row"),
        ((3, Feature(3, shared_with=0, dim=2)), r"field 1 \(dim=2\) shares .* another length"),
    ],
)
def test_impossible_fields_are_named_in_the_error(dims, message):
    with pytest.raises(UserError, match=message):
        as_features(dims)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((4.0, 3), r"field_dims\[0\]=4.0 must be whole numbers"),
        ((4, "3"), r"field_dims\[1\]='3' must be"),
        ((True,), r"field_dims\[0\]=True must be"),
        ((4, Feature(3, True)), r"field_dims\[1\]=Feature\(rows=3, slots=True.* must be"),
        ((3, Feature(3, shared_with=False)), r"field_dims\[1\]=Feature.* must be"),
        (5, "field_dims=5 must be a list"),
    ],
)
def test_only_whole_numbers_are_accepted(unchecked_types, dims, message):
    with pytest.raises(UserError, match=message):
        as_features(dims)


def test_numbers_may_be_numpys(unchecked_types):
    assert as_features(np.array([4, 7])) == as_features((np.int32(4), Feature(np.int64(7))))


def test_shared_rows_do_not_count_towards_the_limit():
    dims = (2**31 - 2, Feature(2**31 - 2, shared_with=0), 1)
    assert total_rows(as_features(dims)) == 2**31 - 1


def test_a_dense_field_has_numbers_instead_of_slots():
    features = as_features((4, Feature(size=3), Feature(5, 2), Feature(size=1)))
    assert slot_counts(features) == (1, 0, 2, 0)
    assert dense_size(features) == 4
    assert total_rows(features) == 9
