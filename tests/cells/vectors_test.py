"""Cells of vectors: text and lists are the same, and what is no vector is refused."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Feature, Label, Schema, UserError, Vector
from deepfm_jax.encoding.encoder import fit
from deepfm_jax.readers.sources import typed_table

FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)


def typed(cells, size=2, **options):
    schema = Schema((Label("y"), Categorical("c"), Vector("v", size, **options)))
    if not isinstance(cells, pa.Array):
        cells = pa.array(cells)
    return typed_table({"c": ["a"] * len(cells), "v": cells}, schema)["v"].to_pylist()


def test_text_is_split_and_a_missing_vector_is_all_zeros():
    assert typed(["0.5|-2", "", None, " 1e3 | .5"]) == [[0.5, -2], [0, 0], [0, 0], [1000, 0.5]]
    assert typed(["0.5 -2"], separator=" ") == [[0.5, -2]]
    assert typed(["7", None], size=1) == [[7], [0]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.list_(pa.float32(), 2),
        pa.large_list(pa.float16()),
        pa.list_view(pa.int8()),
    ],
    ids=str,
)
def test_lists_of_any_layout_are_read(kind):
    cells = pa.array([[1, 2], None, [-3, 4]], kind)
    assert typed(cells) == [[1, 2], [0, 0], [-3, 4]]
    assert typed(cells.slice(2)) == [[-3, 4]]


def test_an_empty_list_is_a_missing_vector():
    assert typed(pa.array([[], [1.0, 2.0]])) == [[0, 0], [1, 2]]


@pytest.mark.parametrize(
    "cell", ["1", "1|2|3", "1|", "1|x", "x", "1|nan", "1|inf", "1|1e39", "|", "1||2"]
)
def test_what_is_no_vector_is_named(cell):
    with pytest.raises(UserError, match=r"row 2, column v: value .* is not a vector of 2 finite"):
        typed(["1|2", cell])


def test_a_list_with_a_gap_is_no_vector():
    for cell in ([1.0, None], [None, None], [float("nan"), 1.0], [1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(UserError, match=r"column v: value .* is not a vector of 2 finite"):
            typed(pa.array([cell], pa.list_(pa.float64())))


def test_bad_vectors_may_be_left_out():
    schema = Schema((Label("y"), Categorical("c"), Vector("v", 2)))
    rows = {"c": ["a", "b", "a"], "v": ["1|2", "1", "3|4"]}
    table = typed_table(rows, schema, max_bad_rows=1)
    assert table["v"].to_pylist() == [[1, 2], [3, 4]]
    encoded = fit([table], schema).encode(table)
    np.testing.assert_array_equal(encoded.ids, [[1], [1]])
    assert encoded.values is None
    np.testing.assert_array_equal(encoded.dense, [[1, 2], [3, 4]])


def test_cells_of_another_type_are_refused():
    with pytest.raises(UserError, match="cannot be read as a vector column"):
        typed(pa.array([[[1.0]]]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(FLOAT, min_size=3, max_size=3)), min_size=1))
def test_encoded_vectors_stand_side_by_side(rows):
    schema = Schema((Label("y"), Vector("v", 3), Categorical("c"), Vector("w", 3)))
    text = [None if row is None else "|".join(map(repr, row)) for row in rows]
    lists = pa.array(rows, pa.list_(pa.float64()))
    table = typed_table({"v": text, "c": ["a"] * len(rows), "w": lists}, schema)
    expected = np.array([[0.0] * 3 if row is None else row for row in rows], np.float32)
    encoder = fit([table], schema)
    expected = np.hstack([expected, expected])
    np.testing.assert_array_equal(encoder.encode(table).dense, expected)
    np.testing.assert_array_equal(encoder.encode(table.slice(1)).dense, expected[1:])
    assert encoder.features == (
        Feature(size=3, slots=0, name="v"),
        Feature(2, name="c"),
        Feature(size=3, slots=0, name="w"),
    )
