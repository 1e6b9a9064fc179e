"""Schemas guessed from files: what each column becomes, and that preparation reads by it."""

import datetime
import gzip

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
    MultiValued,
    Numeric,
    TextFormat,
    Timestamp,
    UserError,
    Vector,
)
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.readers.sources import read_tables
from tests import click_logs

ROWS = 300
RNG = np.random.default_rng(0)
CELLS = {
    "row_id": [str(i) for i in range(ROWS)],
    "session": [f"{code:032x}" for code in range(ROWS)],
    "big": [str(10**19 + i) for i in range(ROWS)],
    "device": RNG.choice(["phone", "desktop", ""], ROWS).tolist(),
    "zip": [f"{code:05}" for code in RNG.integers(0, 200, ROWS)],
    "position": RNG.integers(-1, 9, ROWS).astype(str).tolist(),
    "item_id": RNG.integers(0, 200, ROWS).astype(str).tolist(),
    "views": RNG.integers(0, 10_000, ROWS).astype(str).tolist(),
    "price": RNG.lognormal(0, 1, ROWS).round(2).astype(str).tolist(),
    "empty": [""] * ROWS,
    "constant": ["web"] * ROWS,
    "at": [f"2024-02-{1 + i % 28:02} {i % 24:02}:00:01" for i in range(ROWS)],
    "birth_date": [f"{1 + i % 12:02}/{13 + i % 15:02}/1980" for i in range(ROWS)],
    "time": [str(1_700_000_000 + 977 * i) for i in range(ROWS)],
    "ts": [str(1_700_000_000_000 + 977 * i) for i in range(ROWS)],
    "hour": [f"241{i % 3}{10 + i % 20}{i % 24:02}" for i in range(ROWS)],
    "clicked": RNG.choice(["0", "1"], ROWS).tolist(),
}
EXPECTED = (
    Ignored("row_id"),
    Ignored("session"),
    Ignored("big"),
    Categorical("device", min_count=2),
    Categorical("zip", min_count=2),
    Categorical("position", dtype="integer", min_count=2),
    Categorical("item_id", dtype="integer", min_count=2),
    Numeric("views", transform="quantile"),
    Numeric("price", transform="quantile"),
    Ignored("empty"),
    Ignored("constant"),
    Timestamp("at"),
    Timestamp("birth_date", "%m/%d/%Y", parts=("weekday", "month")),
    Timestamp("time", "unix"),
    Timestamp("ts", "unix_ms"),
    Timestamp("hour", "%y%m%d%H"),
    Label("clicked"),
)


def lines(cells, delimiter=",", header=True):
    rows = [delimiter.join(row) for row in zip(*cells.values(), strict=True)]
    return "\n".join([*([delimiter.join(cells)] if header else []), *rows]) + "\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="rows.csv"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write_file


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "a.csv"), ("\t", "a.tsv.gz"), (";", "a.txt")]
)
def test_columns_are_guessed_by_content_and_name(write, delimiter, name):
    path = write(lines(CELLS, delimiter), name)
    inference = infer_schema(path)
    assert inference.schema.columns == EXPECTED
    assert inference.schema.text == TextFormat(delimiter)
    assert inference.rows == ROWS
    # What was guessed reads the file whole.
    assert sum(t.num_rows for t in read_tables(path, inference.schema)) == ROWS


def test_each_decision_has_its_reason(write):
    reported = infer_schema(write(lines(CELLS))).describe().splitlines()
    assert reported[0] == "from 300 rows: delimiter ',', a header"
    assert len(reported) == 1 + len(CELLS)
    for line, column in zip(reported[1:], EXPECTED, strict=True):
        name, kind, reason = line.split(maxsplit=2)
        assert (name, kind) == (column.name, type(column).__name__.lower())
        assert len(reason) > 5
    missing = CELLS["device"].count("") / ROWS
    assert reported[4].endswith(f"text, 2 distinct values, {missing:.1%} missing")
    assert "a row number" in reported[1]
    assert "only one value, 'web'" in reported[11]


def test_a_file_without_a_header_has_numbered_columns(write):
    cells = {name: CELLS[name] for name in ("clicked", "device", "price")}
    path = write(lines(cells, "\t", header=False), "a.tsv")
    with pytest.raises(UserError, match="no column looks like a label; name it with --label=NAME"):
        infer_schema(path)
    schema = infer_schema(path, "column_1").schema
    assert schema.columns == (
        Label("column_1"),
        Categorical("column_2", min_count=2),
        Numeric("column_3", transform="quantile"),
    )
    assert not schema.text.header
    assert sum(t.num_rows for t in read_tables(path, schema)) == ROWS


def test_row_numbers_without_a_name_and_empty_lines_are_no_hindrance(write):
    cells = {"": [str(i) for i in range(ROWS)], "click": CELLS["clicked"], "zip": CELLS["zip"]}
    path = write(lines(cells).replace("\n7,", "\n\n7,"))
    schema = infer_schema(path).schema
    assert schema.columns[:2] == (Ignored(""), Label("click"))
    assert sum(t.num_rows for t in read_tables(path, schema, max_bad_rows=1)) == ROWS


def test_words_for_missing_values_are_found(write):
    cells = {name: list(CELLS[name]) for name in ("clicked", "device", "price", "views")}
    cells["price"][7], cells["views"][9] = "NA", "\\N"
    cells["device"] = [device or "?" for device in cells["device"]]
    path = write(lines(cells))
    schema = infer_schema(path).schema
    assert schema.text.missing == ("NA", "\\N", "?")
    assert isinstance(schema.columns[2], Numeric)
    (table,) = read_tables(path, schema)
    assert table["price"].null_count == table["views"].null_count == 1
    assert table["device"].null_count == CELLS["device"].count("")
    # A rare word among others is a word.
    cells = {"clicked": CELLS["clicked"], "device": ["None", *(["phone", "desktop"] * 150)[1:]]}
    assert infer_schema(write(lines(cells))).schema.text.missing == ()


def test_padded_cells_are_trimmed(write):
    cells = {f" {name}" if name != "clicked" else name: [f" {c}" for c in CELLS[name]]
             for name in ("clicked", "device", "price")}  # fmt: skip
    path = write(lines(cells))
    schema = infer_schema(path).schema
    assert schema.text.trim
    assert [column.name for column in schema.columns] == ["clicked", "device", "price"]
    (table,) = read_tables(path, schema)
    assert table["device"].null_count == CELLS["device"].count("")


def test_quoted_cells_with_delimiters(write):
    cells = {**CELLS, "title": [f'"Item {i % 9}, the ""best"""' for i in range(ROWS)]}
    path = write(lines(cells))
    schema = infer_schema(path).schema
    assert schema.text.quoting
    (table,) = read_tables(path, schema)
    assert table["title"][0].as_py() == 'Item 0, the "best"'


def test_quoted_cells_with_line_breaks(write):
    cells = {**CELLS, "title": [f'"Item {i % 9}\nthe, ""best""\none"' for i in range(ROWS)]}
    path = write(lines(cells))
    schema = infer_schema(path).schema
    assert schema.text == TextFormat()
    assert schema.columns[-2:] == (Label("clicked"), Categorical("title", min_count=2))
    (table,) = read_tables(path, schema)
    assert table["title"][0].as_py() == 'Item 0\nthe, "best"\none'


def test_integers_of_a_column_that_lacks_some_are_integers(write):
    cells = {name: [f"{c}.0" for c in CELLS[name]] for name in ("position", "item_id", "views")}
    cells["position"][5] = ""
    path = write(lines({**cells, "clicked": CELLS["clicked"]}))
    schema = infer_schema(path).schema
    assert schema.columns[:-1] == tuple(c for c in EXPECTED if c.name in cells)
    (table,) = read_tables(path, schema)
    assert table["item_id"].to_pylist() == [int(cell) for cell in CELLS["item_id"]]


def test_a_row_that_is_too_long_is_named(write):
    path = write("click,x\n1,a\n0," + "z" * (9 << 20) + "\n")
    with pytest.raises(UserError, match="line 3: the row is longer than 4,194,304 bytes"):
        infer_schema(path)


@pytest.mark.parametrize(
    ("name", "cells", "label"),
    [
        ("Click", ["0", "1"], Label("Click")),
        ("label", ["1.0", "0.0"], Label("label")),
        ("target", ["Yes", "No"], Label("target", values=("No", "Yes"))),
        ("y", ["True", "False"], Label("y", values=("False", "True"))),
        ("label", ["1", "-1"], Label("label", values=("-1", "1"))),
        ("y", ["0", "0"], Label("y")),
    ],
)
def test_a_label_is_known_by_name_and_content(write, name, cells, label):
    path = write(lines({"device": CELLS["device"], name: cells * (ROWS // 2)}))
    schema = infer_schema(path).schema
    assert schema.label == label
    assert sum(t.num_rows for t in read_tables(path, schema)) == ROWS


def test_a_named_label_may_be_any_pair(write):
    cells = {"device": CELLS["device"], "click": CELLS["position"], "end": ["won", "lost"] * 150}
    path = write(lines(cells))
    with pytest.raises(UserError, match=r"looks like a label \(click does not hold two values"):
        infer_schema(path)
    inference = infer_schema(path, "end")
    assert inference.schema.label == Label("end", values=("lost", "won"))
    assert "'won' is assumed to mean yes" in inference.reasons["end"]
    with pytest.raises(UserError, match=r"label 'click' holds 10 distinct values \(.*, \.\.\.\)"):
        infer_schema(path, "click")
    with pytest.raises(UserError, match="has no column 'clik' for the label; it has device"):
        infer_schema(path, "clik")


def test_parquet_is_guessed_by_its_types(tmp_path):
    path = tmp_path / "a.parquet"
    day = datetime.date(2024, 2, 27)
    table = pa.table(
        {
            "click": [True, False] * 150,
            "user_id": pa.array(RNG.integers(0, 200, ROWS), pa.int32()),
            "price": RNG.lognormal(0, 1, ROWS),
            "at": [datetime.datetime(2024, 2, 27, i % 24) for i in range(ROWS)],
            "day": [day + datetime.timedelta(days=i) for i in range(ROWS)],
            "device": pa.array(CELLS["device"]).dictionary_encode(),
            "tags": [["a", "b", None], None, []] * (ROWS // 3),
            "past": [list(range(i % 5)) for i in range(ROWS)],
            "pairs": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
            "vector": [[0.5, 1.0], None] * (ROWS // 2),
            "scores": [[0.5] * (1 + i % 3) for i in range(ROWS)],
            "long": [[0.5] * 300] * ROWS,
            "amount": pa.array(CELLS["price"]).cast(pa.decimal128(12, 2)),
            "none": pa.array([[]] * ROWS, pa.list_(pa.string())),
        }
    )
    pa_parquet.write_table(table, path)
    schema = infer_schema(path).schema
    assert schema.columns == (
        Label("click", values=("false", "true")),
        Categorical("user_id", dtype="integer", min_count=2),
        Numeric("price", transform="quantile"),
        Timestamp("at"),
        Timestamp("day", parts=("weekday", "month")),
        Categorical("device", min_count=2),
        MultiValued("tags", max_length=3, min_count=2),
        MultiValued("past", "integer", max_length=4, min_count=2),
        Ignored("pairs"),
        Vector("vector", 2),
        Ignored("scores"),
        Ignored("long"),
        Numeric("amount", transform="quantile"),
        Ignored("none"),
    )
    (typed,) = read_tables(path, schema)
    assert typed.num_rows == ROWS
    assert typed["click"].to_pylist()[:2] == [1, 0]


def test_text_of_several_values_differs_from_text_with_a_bar_in_it(write):
    genres = ["Drama", "Comedy", "Film-Noir", "Action", "War", "Western"]
    cells = {
        "genres": ["|".join(genres[: 1 + i % 4][:: -1 if i % 3 else 1]) for i in range(ROWS)],
        "ids": [f"{i % 7}|{i % 11}|{i % 5}" if i % 2 else f"{i % 7}" for i in range(ROWS)],
        "title": [f"film {i % 90}" + (" | a story" if i < 3 else "") for i in range(ROWS)],
        "click": CELLS["clicked"],
    }
    path = write(lines(cells))
    schema = infer_schema(path).schema
    assert schema.columns == (
        MultiValued("genres", max_length=4, min_count=2),
        MultiValued("ids", "integer", max_length=3, min_count=2),
        Categorical("title", min_count=2),
        Label("click"),
    )
    (table,) = read_tables(path, schema)
    assert table["ids"].to_pylist()[:2] == [[0], [1, 1, 1]]


def test_avazu_is_guessed_as_its_builder_has_it(tmp_path):
    path = tmp_path / "train.csv.gz"
    click_logs.write_avazu(path, 300)
    schema = infer_schema(path).schema
    kinds = {column.name: column for column in schema.columns}
    assert kinds["id"] == Ignored("id")
    assert kinds["hour"] == Timestamp("hour", "%y%m%d%H")
    assert schema.label == Label("click")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("\x1c\n", "the file is empty"),
        ("click,device\n", "the file holds no rows"),
        ("click,device", "the file holds no rows"),
        ("one\ntwo\n", "no delimiter splits its lines into cells"),
        ("click,x,x\n1,2,3\n", "column 'x' appears twice"),
        ("\n\nclick,x\n1,2\n0,3\n", "line 1 is empty: the names of the columns, or the first row"),
        ("My export\nclick,x\n1,2\n0,3\n1,4\n0,5\n", "line 1: 1 columns instead of 2 in 'My exp"),
        ("click,x\n1,\n0,\n", "no column except the label 'click' can be a field"),
        ("click,x\n1,\0\n", "line 2: holds NUL bytes"),
    ],
)
def test_what_is_no_table_is_reported(write, text, message):
    path = write(text)
    with pytest.raises(UserError, match=message) as raised:
        infer_schema(path)
    assert str(path) in str(raised.value)


def test_messages_are_short_whatever_the_file_holds(write):
    long = "z" * 1000
    columns = {"click": ["0", "1"], "constant": [long] * 2, "x": ["5", "6"], long: ["a", "b"]}
    reported = infer_schema(write(lines(columns))).describe()
    assert f"only one value, '{long[:60]}'..." in reported
    assert max(map(len, reported.splitlines())) < 200
    with pytest.raises(UserError) as raised:
        infer_schema(
            write(lines({"device": [long + "1", long + "2", long], "x": ["1"] * 3})), "device"
        )
    assert len(str(raised.value)) < 500
    many = {f"column_of_{i}": ["5", "6"] for i in range(500)}
    for label in (None, "column_f_7"):
        with pytest.raises(UserError, match="column_of_4 and 495 others") as raised:
            infer_schema(write(lines(many)), label)
        assert len(str(raised.value)) < 500
        assert str(raised.value).endswith("(closest match: column_of_7)") == (label is not None)


def test_what_cannot_be_read_is_reported(write, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        infer_schema(tmp_path / "none.csv")
    with pytest.raises(UserError, match="unknown kind of file"):
        infer_schema(write("a,b\n1,2\n", "a.xlsx"))
    path = tmp_path / "a.csv"
    path.write_bytes(b"click,x\n1,\xff\n")
    with pytest.raises(UserError, match="line 2: not valid UTF-8"):
        infer_schema(path)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.lists(st.sampled_from(["0", "1", "a", "2024-01-01", '"', "", "NA", "1.5"]),
                          min_size=2, max_size=3).map(",".join), max_size=8)
        .map(lambda rows: "\n".join(["click,a,b", *rows]).encode()),
    ),
    st.sampled_from(["a.csv", "a.tsv.gz", "a.parquet"]),
)  # fmt: skip
def test_any_file_gives_a_schema_or_one_line(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    try:
        inference = infer_schema(path)
    except UserError as error:
        message = str(error)
    else:
        assert len(inference.describe().splitlines()) == 1 + len(inference.schema.columns)
        return
    assert str(path) in message
    assert "\n" not in message
