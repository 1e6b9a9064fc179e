"""Fields of several slots, or with the rows of another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm_jax import FieldSpec, UserError
from deepfm_jax.features import by_slot, field_offsets, field_specs, slot_counts, total_rows

DIMS = (4, FieldSpec(6, 3), 5, FieldSpec(6, 2, shared_with=1))


def test_a_number_is_a_field_of_one_slot_with_rows_of_its_own():
    assert field_specs((4, 7)) == (FieldSpec(4), FieldSpec(7))
    assert slot_counts(DIMS) == (1, 3, 1, 2)


def test_shared_rows_count_once():
    assert total_rows(DIMS) == 15
    np.testing.assert_array_equal(field_offsets(DIMS), [0, 4, 10, 4])


def test_the_owner_may_come_later():
    dims = (FieldSpec(6, shared_with=2), 3, 6)
    assert total_rows(dims) == 9
    np.testing.assert_array_equal(field_offsets(dims), [3, 0, 3])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=6))
def test_slots_stand_side_by_side(fields):
    dims = [FieldSpec(rows, slots) for rows, slots in fields]
    expected = [index for index, (_, slots) in enumerate(fields) for _ in range(slots)]
    np.testing.assert_array_equal(by_slot(dims, np.arange(len(dims))), expected)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((), "at least one row"),
        ((3, 0), "at least one row"),
        ((FieldSpec(3, 0),), r"\(and slot\) for each field"),
        ((3, FieldSpec(4, shared_with=0)), r"field 1 \(4 rows\) shares those of field 0.* has 3"),
        ((3, FieldSpec(3, shared_with=2)), "shares the rows of field 2: no such"),
        ((3, FieldSpec(3, shared_with=-1)), "no such"),
        (
            (3, FieldSpec(3, shared_with=0), FieldSpec(3, shared_with=1)),
            "field 2.* has none of its own",
        ),
        ((2**31 - 1, 1), "raise min_count"),
    ],
)
def test_impossible_fields_are_told(dims, message):
    with pytest.raises(UserError, match=message):
        field_specs(dims)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ((4.0, 3), r"field_dims\[0\]=4.0 must be whole numbers"),
        ((4, "3"), r"field_dims\[1\]='3' must be"),
        ((True,), r"field_dims\[0\]=True must be"),
        ((4, FieldSpec(3, True)), r"field_dims\[1\]=FieldSpec\(rows=3, slots=True.* must be"),
        ((3, FieldSpec(3, shared_with=False)), r"field_dims\[1\]=FieldSpec.* must be"),
        (5, "field_dims=5 must be a list"),
    ],
)
def test_what_is_no_whole_number_is_told(unchecked_types, dims, message):
    with pytest.raises(UserError, match=message):
        field_specs(dims)


def test_numbers_may_be_numpys(unchecked_types):
    assert field_specs(np.array([4, 7])) == field_specs((np.int32(4), FieldSpec(np.int64(7))))


def test_shared_rows_do_not_count_towards_the_limit():
    assert total_rows((2**31 - 2, FieldSpec(2**31 - 2, shared_with=0), 1)) == 2**31 - 1
