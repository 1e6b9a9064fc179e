"""Cells of several values: text and lists, weights, what is dropped and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import History, Label, MultiValued, Schema, TextFormat, UserError
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_tables, typed_table

WEIGHTED = MultiValued("g", weight_separator=":")


def typed(column, cells, **options):
    """The typed lists of a column's cells."""
    if not isinstance(cells, pa.Array):
        cells = pa.array(cells)
    schema = Schema((Label("y"), column), TextFormat(**options))
    return typed_table({"g": cells}, schema)["g"].to_pylist()


def pairs(column, cells):
    return [[(each["value"], each["weight"]) for each in row] for row in typed(column, cells)]


def test_text_is_split_and_elements_without_a_value_are_dropped():
    cells = ["a|b", "a||b|", "|", "", None, "a|a", " a | b"]
    expected = [["a", "b"], ["a", "b"], [], [], [], ["a", "a"], [" a ", " b"]]
    assert typed(MultiValued("g"), cells) == expected


def test_a_separator_may_be_any_text():
    assert typed(MultiValued("g", separator=", "), ["a, b,c", "x"]) == [["a", "b,c"], ["x"]]
    assert typed(MultiValued("g", separator="."), ["a.b*c"]) == [["a", "b*c"]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_view(pa.string()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
    ],
    ids=str,
)
def test_lists_of_any_layout_are_read(kind):
    cells = pa.array([["a", None, "", "b|c"], [], None, ["d"]], kind)
    assert typed(MultiValued("g"), cells) == [["a", "b|c"], [], [], ["d"]]
    # A part of an array knows where it starts.
    assert typed(MultiValued("g"), cells.slice(3)) == [["d"]]


def test_a_list_of_fixed_size_is_read():
    cells = pa.array([[1, 2], None, [3, None]], pa.list_(pa.int8(), 2))
    assert typed(MultiValued("g", "integer"), cells) == [[1, 2], [], [3]]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_may_hold_lists(library):
    frame = pytest.importorskip(library).DataFrame({"g": [[3, 1], None, []]})
    schema = Schema((Label("y"), History("g", "integer")))
    assert typed_table(frame, schema)["g"].to_pylist() == [[3, 1], [], []]


def test_a_column_without_any_value_is_of_missing_cells():
    for dtype in ("string", "integer"):
        for cells in (pa.nulls(2), pa.array([[], None], pa.list_(pa.null()))):
            assert typed(MultiValued("g", dtype), cells) == [[], []]


def test_integers_are_parsed_as_those_of_a_categorical_column():
    column = MultiValued("g", "integer", separator=",")
    assert typed(column, ["007, +7,7", " -1"]) == [[7, 7, 7], [-1]]
    assert typed(column, pa.array([[1.0, float("nan")]])) == [[1]]
    assert typed(column, [5, None]) == [[5], []]


def test_the_signs_of_a_missing_value_hold_for_elements_too():
    cells = ["?", "a | ? |b ", " ?|"]
    assert typed(MultiValued("g"), cells, trim=True, missing=("?",)) == [[], ["a", "b"], []]


def test_weights_are_read_after_the_last_separator():
    cells = ["a:0.5|b: 2 ", "http://x:80:3", "", "a:0|b:1", ":4|b:1", None]
    expected = [
        [("a", 0.5), ("b", 2.0)],
        [("http://x:80", 3.0)],
        [],
        [("b", 1.0)],
        [("b", 1.0)],
        [],
    ]
    assert pairs(WEIGHTED, cells) == expected


def test_weights_too_small_for_a_float32_are_nothing():
    assert pairs(WEIGHTED, ["a:1e-60|b:1"]) == [[("b", 1.0)]]


def test_pairs_of_a_table_are_values_with_weights():
    rows = [[("a", 0.5), ("b", 2.0)], None, []]
    expected = [[("a", 0.5), ("b", 2.0)], [], []]
    maps = pa.array([[("x", 1.0)], *rows], pa.map_(pa.string(), pa.float64()))
    assert pairs(WEIGHTED, maps.slice(1)) == expected
    pair = pa.struct([("genre", pa.string()), ("share", pa.float32())])
    named = [row and [{"genre": g, "share": w} for g, w in row] for row in rows]
    assert pairs(WEIGHTED, pa.array(named, pa.list_(pair))) == expected
    assert pairs(WEIGHTED, pa.array([["a:0.5"], []])) == [[("a", 0.5)], []]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        (MultiValued("g", "integer"), "1|x7|y", "column g: value 'x7' is not an integer"),
        (MultiValued("g", "id", size=3), "1|3", "column g: value '3' is not an id from 0 to 2"),
        (MultiValued("g", "id", size=3), "-1", "column g: value '-1' is not an id from 0 to 2"),
        (MultiValued("g"), "a\0|b", "column g: value .* holds NUL bytes"),
        (WEIGHTED, "a:1|b", "column g: value 'b' needs a weight after ':'"),
        (WEIGHTED, "a:1|b:", "column g: value 'b:' needs a weight"),
        (WEIGHTED, "a:-1", "column g: value 'a:-1' needs a weight after ':', a finite number"),
        (WEIGHTED, "a:nan", "column g: value 'a:nan' needs a weight"),
        (WEIGHTED, "a:inf", "column g: value 'a:inf' needs a weight"),
        (WEIGHTED, "a:1e39", "column g: value 'a:1e39' needs a weight"),
        (WEIGHTED, "a:much", "column g: value 'a:much' needs a weight"),
    ],
)  # fmt: skip
def test_a_bad_element_is_named_by_row_column_and_value(column, cell, message):
    with pytest.raises(UserError, match=f"table, row 2, {message}"):
        typed(column, ["", cell, cell])


def test_bad_elements_may_be_counted():
    schema = Schema((Label("y"), MultiValued("g", "integer")))
    report = RowReport()
    cells = ["1|x|y", "2", "x|1", "", "3|4"]
    table = typed_table({"g": cells}, schema, max_bad_rows=2, report=report)
    assert table["g"].to_pylist() == [[2], [], [3, 4]]
    assert (report.read, report.rejected) == (5, 2)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        (MultiValued("g"), pa.array([[["a"]]])),
        (MultiValued("g"), pa.array([{"a": 1}])),
        (WEIGHTED, pa.array([[{"a": 1, "b": 2, "c": 3}]])),
        (MultiValued("g"), pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))),
    ],
)
def test_cells_of_another_type_are_refused(column, cells):
    with pytest.raises(UserError, match=r"cells of type .* cannot be read as a multivalued"):
        typed(column, cells)


ELEMENT = st.text(st.characters(codec="utf-8", exclude_characters='|\0"\r\n\t,'), max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(ELEMENT, max_size=4), min_size=1, max_size=8))
def test_text_and_lists_are_the_same(rows):
    lists = pa.array(rows, pa.list_(pa.string()))
    text = ["|".join(row) for row in rows]
    kept = [[element for element in row if element] for row in rows]
    assert typed(MultiValued("g"), lists) == typed(MultiValued("g"), text) == kept


def test_a_text_file_and_a_parquet_file_are_the_same(tmp_path):
    weighted = MultiValued("w", weight_separator=":")
    schema = Schema((Label("y"), MultiValued("g", "integer"), weighted))
    (tmp_path / "rows.csv").write_text("y,g,w\n1,3|4,a:1|b:2\n0,,\n1,5,\n")
    pair = pa.map_(pa.string(), pa.float64())
    rows = {
        "y": [1, 0, 1],
        "g": pa.array([[3, 4], None, [5]]),
        "w": pa.array([[("a", 1), ("b", 2)], [], None], pair),
    }
    pa_parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    (text,), (lists,) = (
        read_tables(tmp_path / f"rows.{kind}", schema) for kind in ("csv", "parquet")
    )
    assert text.equals(lists)
    assert text["g"].to_pylist() == [[3, 4], [], [5]]


def test_files_with_lists_of_another_type_are_not_one_table(tmp_path):
    schema = Schema((Label("y"), MultiValued("g", "integer")))
    kinds = {"a": pa.list_(pa.int64()), "b": pa.large_list(pa.int8()), "c": pa.list_(pa.string())}
    for name, kind in kinds.items():
        cells = pa.array([["1"]] if name == "c" else [[1]], kind)
        pa_parquet.write_table(pa.table({"y": [1], "g": cells}), tmp_path / f"{name}.parquet")
    tables = read_tables(tmp_path / "[ab].parquet", schema)
    assert pa.concat_tables(tables)["g"].to_pylist() == [[1], [1]]
    with pytest.raises(UserError, match="column g is list of integer in the first and list of tex"):
        list(read_tables(tmp_path / "*.parquet", schema))
