import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import (
    Categorical,
    Ignored,
    Label,
    Numeric,
    Schema,
    TextFormat,
    UserError,
)
from deepfm_jax.readers.sources import RowReport, read_rows, read_tables

COLUMNS = (Label("click"), Ignored("note"), Categorical("app"), Numeric("price"))
CSV = Schema(COLUMNS)
TSV = Schema(COLUMNS, TextFormat("\t", header=False, quoting=False))
HEADER = "click,note,app,price\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="rows.csv"):
        path = tmp_path / name
        if isinstance(text, str):
            text = text.encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return path

    return write_file


def rows(path, schema=CSV, **options):
    return pa.concat_tables(read_tables(path, schema, **options)).to_pylist()


def failure(path, schema=CSV, **options):
    with pytest.raises(UserError) as raised:
        rows(path, schema, **options)
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_cells_are_typed_and_empty_ones_are_missing(write):
    path = write(HEADER + "1,x,a,2.5\n0,,,\n1,y,b, -3e2 \n")
    assert rows(path) == [
        {"click": 1.0, "app": "a", "price": 2.5},
        {"click": 0.0, "app": None, "price": None},
        {"click": 1.0, "app": "b", "price": -300.0},
    ]


@pytest.mark.parametrize("name", ["rows.tsv", "rows.txt", "rows.tsv.gz", "rows.data"])
def test_a_file_without_header_is_read_by_position(write, name):
    path = write("1\tx\ta\t2\n0\ty\tb\t\n", name)
    assert rows(path, TSV) == [
        {"click": 1.0, "app": "a", "price": 2.0},
        {"click": 0.0, "app": "b", "price": None},
    ]


def test_columns_are_found_by_name_in_any_order_and_others_are_left(write):
    path = write("price,extra,click,app\n2,z,1,a\n")
    assert rows(path) == [{"click": 1.0, "app": "a", "price": 2.0}]


def test_quotes_hold_delimiters(write):
    assert rows(write(HEADER + '1,x,"a,b",2\n'))[0]["app"] == "a,b"


def test_quotes_hold_line_breaks_across_blocks(write):
    path = write(HEADER + '1,x,"two\nlines",2\n' * 200)
    assert [row["app"] for row in rows(path, block_bytes=150)] == ["two\nlines"] * 200


def test_a_byte_order_mark_is_no_part_of_the_first_name(write):
    assert len(rows(write(b"\xef\xbb\xbf" + HEADER.encode() + b"1,x,a,2\n"))) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [[1], [2]]}, "column price: cells of type list<.*> cannot be read as a numeric"),
        ({"app": [[1], [2]]}, "column app: cells of type list<.*> cannot be read as a categorical"),
        ({"app": [b"\xff", b"a"]}, "column app: cells of type binary cannot be read"),
        ({"click": [1, 3]}, "row 2, column click: value '3' is not a label"),
    ],
)
def test_parquet_of_the_wrong_type_is_named(tmp_path, columns, message):
    path = tmp_path / "rows.parquet"
    pa_parquet.write_table(
        pa.table({"click": [1, 0], "app": ["a", "b"], "price": [1.0, 2.0], **columns}), path
    )
    assert re.search(message, failure(path))


def test_parquet_types_that_mean_the_same_are_read_alike(tmp_path):
    schema = Schema((Label("y"), Categorical("i", dtype="integer"), Numeric("x")))
    path = tmp_path / "rows.parquet"
    for y, i, x in (
        ([True, False], [5, None], [1.5, None]),
        ([1.0, 0.0], [5.0, None], ["1.5", ""]),
        (["1", "0"], pa.array(["5", ""]).dictionary_encode(), [1.5, float("nan")]),
    ):
        pa_parquet.write_table(pa.table({"y": y, "i": i, "x": x}), path)
        assert rows(path, schema) == [{"y": 1, "i": 5, "x": 1.5}, {"y": 0, "i": None, "x": None}]
    pa_parquet.write_table(
        pa.table({"y": [1], "i": pa.array([2**64 - 1], pa.uint64()), "x": [1]}), path
    )
    assert "column i: value '18446744073709551615'" in failure(path, schema)


def test_a_file_without_a_last_newline_and_with_windows_lines(write):
    assert len(rows(write(HEADER.replace("\n", "\r\n") + "1,x,a,2\r\n0,x,b,3"))) == 2


def test_parquet_is_read_by_name(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"app": ["a", None], "click": [1, 0], "price": [2, None], "other": [1, 1]})
    pa_parquet.write_table(table, path)
    assert rows(path) == [
        {"click": 1.0, "app": "a", "price": 2.0},
        {"click": 0.0, "app": None, "price": None},
    ]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0"))
NUMBERS = st.one_of(st.none(), st.floats(-1e9, 1e9))


@settings(max_examples=25, deadline=None)
@given(
    cells=st.lists(st.tuples(st.booleans(), TEXT, NUMBERS), min_size=1, max_size=40),
    block=st.integers(200, 2000),
)
def test_what_is_written_is_read_whatever_the_block_size(tmp_path_factory, cells, block):
    path = tmp_path_factory.mktemp("any") / "rows.tsv"
    lines = [f"{int(y)}\tn\t{app}\t{'' if x is None else repr(x)}" for y, app, x in cells]
    path.write_text("\n".join(lines) + "\n", newline="")
    found = rows(path, TSV, block_bytes=block)
    assert found == [{"click": float(y), "app": app or None, "price": x} for y, app, x in cells]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2,x,a,1", "line 3, column click: value '2' is not a label, 0 or 1"),
        (",x,a,1", "line 3, column click: value missing is not a label, 0 or 1"),
        ("yes,x,a,1", "line 3, column click: value 'yes' is not a label"),
        ("1,x,a,cheap", "line 3, column price: value 'cheap' is not a finite number"),
        ("1,x,a,nan", "line 3, column price: value 'nan' is not a finite number"),
        ("1,x,a,1e999", "line 3, column price: value '1e999' is not a finite number"),
        ("1,x,a", r"line 3, 3 columns instead of 4 in '1,x,a'"),
        ("1,x,a,1,5", r"line 3, 5 columns instead of 4 in '1,x,a,1,5'"),
        ("", "line 3, "),
    ],
)
def test_a_bad_row_is_named_by_line_column_and_value(write, line, expected):
    message = failure(write(HEADER + f"1,x,a,1\n{line}\n0,x,b,2\n"))
    assert re.search(expected, message), message
    assert "--max_bad_rows" in message


def test_a_first_row_with_a_long_cell_is_a_row(write):
    path = write("1,x," + "z" * 200_000 + ",2\n")
    (row,) = rows(path, Schema(COLUMNS, TextFormat(header=False)))
    assert len(row["app"]) == 200_000


def test_lines_count_from_one_without_a_header(write):
    message = failure(write("1\tx\ta\t1\n1\tx\ta\tq\n", "rows.tsv"), TSV)
    assert "line 2, column price: value 'q'" in message


def test_an_integer_column_takes_only_integers(write):
    schema = Schema((Label("click"), Categorical("user", dtype="integer")))
    assert [r["user"] for r in rows(write("click,user\n1,007\n0,+7\n1,\n"), schema)] == [7, 7, None]
    assert "value 'x7' is not an integer" in failure(write("click,user\n1,x7\n"), schema)
    assert "value '7.5' is not an integer" in failure(write("click,user\n1,7.5\n"), schema)


def test_bad_rows_are_left_out_and_counted_up_to_the_limit(write):
    good, bad = "1,x,a,1\n", "1,x,a,q\n"
    path = write(HEADER + good + bad + good + "1,x\n" + good)
    report = RowReport()
    assert len(rows(path, max_bad_rows=2, report=report)) == 3
    assert (report.read, report.kept, report.rejected) == (5, 3, 2)
    assert "line 3, column price" in report.first_errors[0]
    assert "line 5, 2 columns instead of 4" in report.first_errors[1]
    assert "line 5" in failure(path, max_bad_rows=1)


@pytest.mark.parametrize("block", [80, 300, 1 << 20])
def test_lines_stay_right_over_many_blocks(write, block):
    lines = [f"{i % 2},n,app{i},{i}" for i in range(300)]
    for i in (7, 100, 101, 290):
        lines[i] = "1,n"
    lines[200] = "1,n,a,worst"
    report = RowReport()
    path = write(HEADER + "\n".join(lines) + "\n")
    found = rows(path, max_bad_rows=9, report=report, block_bytes=block)
    assert [r["app"] for r in found] == [
        f"app{i}" for i in range(300) if i not in (7, 100, 101, 200, 290)
    ]
    named = [int(m.split("line ")[1].split(",")[0]) for m in report.first_errors]
    assert named == [9, 102, 103, 202, 292]
    assert report.read == 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "the file is empty"),
        (HEADER.encode(), "the file holds no rows"),
        (HEADER.strip().encode(), "the file holds no rows"),
        (b"click,app\n1,a\n", "line 1: column 'price' is missing"),
        (b"app,note,price\na,b,1\n", "line 1: column 'click' is missing"),
        (b"click,app,app,price\n1,a,a,1\n", "column 'app' appears twice"),
        (HEADER.encode() + b"1,x,a,1\n1,x,\xff\xfe,1\n", "line 3: not valid UTF-8"),
        (HEADER.encode() + b"1,x,a,1\n1,\xff\xfe\n", "line 3: not valid UTF-8"),
        (b"\xff\xfe\n", "line 1: not valid UTF-8"),
        (b"\n\n" + HEADER.encode() + b"1,x,a,1\n", "line 1 is empty: the names of the columns"),
        (b",".join(b"c%d" % i for i in range(4000)), "found c0, c1, c2, c3, c4 and 3,995 others"),
        (b",".join(b"appl%d" % i for i in range(40)), "35 others (closest match: appl"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(write, text, expected):
    message = failure(write(text))
    assert expected in message
    assert len(message) < 500


def test_missing_unknown_and_truncated_files(write, tmp_path):
    assert "no such file" in failure(tmp_path / "none.csv")
    assert "a folder, not a file" in failure(tmp_path)
    assert "unknown kind of file" in failure(write("x", "rows.xlsx"))
    path = write(HEADER + "1,x,a,1\n" * 10_000, "rows.csv.gz")
    path.write_bytes(path.read_bytes()[:-40])
    assert "truncated" in failure(path)


def test_labels_may_be_absent_when_scoring(write):
    path = write("note,app,price\nx,a,1\n")
    assert rows(path, labelled=None) == [{"app": "a", "price": 1.0}]
    path = write("x\ta\t1\n", "rows.tsv")
    assert rows(path, TSV, labelled=None) == [{"app": "a", "price": 1.0}]


def test_raw_rows_stand_beside_the_typed_ones(write):
    path = write("extra,click,note,app,price\nkeep,1,x,a, 2.50\nq,7,x,a,1\n")
    (pair,) = read_rows(path, CSV, max_bad_rows=1)
    assert pair.raw.to_pylist() == [
        {"extra": "keep", "click": "1", "note": "x", "app": "a", "price": " 2.50"}
    ]
    np.testing.assert_array_equal(pair.typed["price"].to_numpy(), [2.5])
