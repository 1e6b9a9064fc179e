"""Strange files: whatever the bytes, typed rows or a UserError that names the file."""

import gzip
import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepfm_jax import (
    Categorical,
    Ignored,
    Label,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    UserError,
)
from deepfm_jax.encoding.encoder import fit
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_rows, read_tables
from tests.encoders import field_rows

COLUMNS = (
    Label("click"),
    Ignored("note"),
    Categorical("app"),
    Categorical("user", dtype="integer"),
    Numeric("price"),
)
CSV = Schema(COLUMNS)
TSV = Schema(COLUMNS, TextFormat("\t", header=False, quoting=False))
HEADER = b"click,note,app,user,price\n"
GOOD = (b"1,x,a,3,2.5", b'0,"y, z","b ""c""",,', b'1,,"two\nlines",-4,-3e2', "0,ä,é,5,0".encode())
VALID_CSV = HEADER + b"\n".join(GOOD) + b"\n"
VALID_TSV = b'1\tx\ta\t3\t2.5\n0\ty\tb\t\t\n1\tz\t"q\t-4\t-3e2\n'
VALID_LIBFM = b"1 5:1 6:1 7:1 9:2.5\n-1 5:1 8:1 7:1 9:-3e2 # more\n+1 0:1 6:1 6:1 9:1\n"
ALL = 1 << 30  # More bad rows than any of these files has.


def parquet_bytes():
    table = pa.table(
        {
            "click": [1, 0],
            "note": ["", None],
            "app": ["a", None],
            "user": [3, None],
            "price": [1, 2],
        }
    )
    buffer = io.BytesIO()
    pa_parquet.write_table(table, buffer)
    return buffer.getvalue()


def check(path, schema, *, block_bytes=1 << 16):
    """Reads a file in every way; what is reported must add up, and nothing else may be raised."""
    outcomes = []
    for read, columns in ((read_tables, None), (read_rows, "typed")):
        report, rejected = RowReport(), []
        report.on_rejected = rejected.append
        options = {"max_bad_rows": ALL, "labelled": True, "report": report}
        try:
            tables = list(read(path, schema, block_bytes=block_bytes, **options))
        except UserError as error:
            outcomes.append("refused")
            message = str(error)
        else:
            message = ""
        if message:
            assert str(path) in message
            assert "\n" not in message
            continue
        typed = [getattr(table, columns) if columns else table for table in tables]
        assert report.read == report.kept + report.rejected
        assert report.kept == sum(table.num_rows for table in typed)
        assert report.rejected == len(rejected)
        positions = [row.position for row in rejected]
        assert positions == sorted(set(positions))
        for table in typed:
            assert table.schema.names == ["click", "app", "user", "price"]
            assert set(table["click"].to_pylist()) <= {0.0, 1.0}
            assert not any("\0" in app for app in table["app"].to_pylist() if app)
        outcomes.append((report.kept, report.rejected))
    tables, rows = outcomes
    if rows != "refused":
        # Both have met the same rows; faults of an ignored column are found by reading it alone.
        assert sum(tables) == sum(rows)
        assert tables[0] >= rows[0]
    return tables


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.tsv", "a.parquet", "a.libfm"]
)
@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300))
def test_random_bytes(tmp_path_factory, name, content):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    check(path, TSV if ".tsv" in name else CSV)


BYTES = st.one_of(
    st.sampled_from(
        [b'"', b",", b"\n", b"\r", b"\0", b"\t", b"\xff", b"\xc3", b"\xef\xbb\xbf", b" "]
    ),
    st.binary(min_size=1, max_size=4),
)
# Where (as a share of the file), how many bytes go and which come in their place.
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 6), st.one_of(st.just(b""), BYTES)),
    min_size=1,
    max_size=5,
)


def edited(content, edits):
    for place, removed, added in edits:
        start = int(place * len(content))
        content = content[:start] + added + content[start + removed :]
    return content


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet", "a.libfm"])
@settings(max_examples=150, deadline=None)
@given(edits=EDITS, block_bytes=st.sampled_from([64, 100, 1 << 16]), inside=st.booleans())
@example(edits=[(0.0, 0, b"\r")], block_bytes=64, inside=True)
@example(edits=[(1.0, 0, b'1,x,"a,3,1\n')], block_bytes=1 << 16, inside=True)
@example(edits=[(1.0, 0, b"\n")], block_bytes=1 << 16, inside=True)
def test_mutations_of_a_valid_file(tmp_path_factory, name, edits, block_bytes, inside):
    path = tmp_path_factory.mktemp("fuzz") / name
    if name == "a.parquet":
        content = edited(parquet_bytes(), edits)
    elif name == "a.tsv":
        content = edited(VALID_TSV, edits)
    elif name == "a.libfm":
        content = edited(VALID_LIBFM, edits)
    elif name == "a.csv":
        content = edited(VALID_CSV, edits)
    elif inside:
        content = gzip.compress(edited(VALID_CSV, edits))
    else:
        content = edited(gzip.compress(VALID_CSV), edits)
    path.write_bytes(content)
    check(path, TSV if name == "a.tsv" else CSV, block_bytes=block_bytes)


@pytest.mark.parametrize(("name", "content", "schema", "rows"), [
    ("a.csv", VALID_CSV, CSV, 4), ("a.tsv", VALID_TSV, TSV, 3), ("a.parquet", None, CSV, 2),
    ("a.libfm", VALID_LIBFM, CSV, 3),
])  # fmt: skip
def test_the_files_that_are_mutated_are_valid(tmp_path, name, content, schema, rows):
    path = tmp_path / name
    path.write_bytes(parquet_bytes() if content is None else content)
    assert check(path, schema) == (rows, 0)


LATER = Schema(
    (
        Label("click", values=("no", "yes")),
        Categorical("shop", hash_buckets=9),
        Categorical("user", dtype="id", size=10),
        Timestamp("at"),
        Timestamp("hour", "%y%m%d%H"),
        Timestamp("seen", "unix"),
    ),
    TextFormat(trim=True, missing=("?",)),
)
LATER_CSV = (
    b"click,shop,user,at,hour,seen\nyes, a ,3,2014-10-21 05:00,14102105,1413868800\n"
    b"no,?,?,2014-10-21T05:00:00Z,14102123,1.5e9\nyes,b,9,2014-10-21,?,\n"
)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS)
def test_mutations_of_times_ids_and_named_labels(tmp_path_factory, edits):
    path = tmp_path_factory.mktemp("fuzz") / "a.csv"
    for content, clean in ((LATER_CSV, True), (edited(LATER_CSV, edits), False)):
        path.write_bytes(content)
        report = RowReport()
        try:
            tables = list(read_tables(path, LATER, max_bad_rows=ALL, report=report))
        except UserError as error:
            message = str(error)
        else:
            message = str(path)
            encoder = fit(tables, LATER) if report.kept else None
            for table in tables:
                ids = encoder.encode(table).ids
                assert (ids >= 0).all()
                assert (ids < np.asarray(field_rows(encoder))).all()
        assert str(path) in message
        assert not clean or (report.kept, report.rejected) == (3, 0)
        assert report.read >= report.kept + report.rejected


def test_an_id_out_of_range_in_a_row_that_is_left_out_is_not_encoded(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("click,user\n1,3\n0,20\n1,\n0,9\n")
    schema = Schema((Label("click"), Categorical("user", dtype="id", size=10)))
    report = RowReport()
    tables = list(read_tables(path, schema, max_bad_rows=1, report=report))
    assert "line 3, column user: value '20' is not an id" in report.first_errors[0]
    encoder = fit(tables, schema)
    found = [ids for table in tables for ids in encoder.encode(table).ids.ravel().tolist()]
    assert found == [3, 0, 9]


def failure(path, schema=CSV, **options):
    with pytest.raises(UserError) as raised:
        list(read_tables(path, schema, **options))
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"1,x,a\0b,3,1", r"line 2, column app: value 'a\\x00b' holds NUL bytes"),
        (b"1,x,a,3,1 000", "line 2, column price: value '1 000' is not a finite number"),
        (b"1,x,a,3,\x001", r"line 2, column price: value '\\x001' is not a finite number"),
        (b"1,x,a,3 4,1", "line 2, column user: value '3 4' is not an integer"),
        (b"1,x,a,99999999999999999999,1", "column user: value '9+' is not an integer"),
        (b'1,x,"a,3,1\n0,y,b,4,2\n0,y,b,4,2\n1,x,"c",3,1',
         r"line 2, column app: value .* spans whole rows \(is a quote missing\?\)"),
    ],
)  # fmt: skip
def test_a_strange_cell_is_named(tmp_path, row, expected):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + row + b"\n")
    assert re.search(expected, failure(path))


def test_a_cell_with_line_breaks_and_commas_is_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b'1,x,"one, two\nthree, four, five\nsix",3,1\n')
    assert check(path, CSV) == (1, 0)


@pytest.mark.parametrize(
    ("content", "block", "expected"),
    [
        (HEADER + GOOD[0] + b'\n1,x,"a,3,1\n' + 20 * b"0,y,b,4,2\n", 100,
         "line 3: the row is longer than 100 bytes; is a quote missing?"),
        (HEADER + GOOD[0] + b"\n1,x," + 500 * b"a" + b",3,1\n", 100,
         "line 3: the row is longer than 100 bytes"),
        ("click,note,app,user,price\n1,x,a,3,1\n".encode("utf-16-le"), 1 << 16,
         "line 1: holds NUL bytes; convert the file to UTF-8"),
        (b"click,note,app,app,user,price\n", 1 << 16, "line 1: column 'app' appears twice"),
    ],
)  # fmt: skip
def test_a_strange_file_is_named_by_line(tmp_path, content, block, expected):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert expected in failure(path, block_bytes=block)


def test_lines_that_end_by_a_carriage_return_alone_are_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER.replace(b"\n", b"\r") + b"1,x,a,3,1\r0,x,b,4,2\r")
    assert check(path, CSV) == (2, 0)


def test_a_parquet_file_with_a_name_twice_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    columns = [pa.array(["1"])] * 5
    pa_parquet.write_table(
        pa.Table.from_arrays(columns, names=["click", "app", "app", "user", "price"]), path
    )
    assert "column 'app' appears twice" in failure(path)
