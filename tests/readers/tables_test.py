"""Several files as one source, and tables in memory."""

import gzip
import shutil

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Ignored, Label, Numeric, Schema, UserError
from deepfm_jax.datasets.files import find_split
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import find_files, read_rows, read_tables, typed_table
from tests import click_logs

SCHEMA = Schema(
    (Label("click"), Ignored("note"), Categorical("app"), Categorical("user", dtype="integer"),
     Numeric("price"))
)  # fmt: skip
HEADER = "click,note,app,user,price\n"
ROWS = {
    "app": ["a", None, "5"],
    "user": [3, None, -(2**40)],
    "price": [2.5, None, 0.0],
    "click": [1, 0, 1],
}
TYPED = [
    {"click": 1.0, "app": "a", "user": 3, "price": 2.5},
    {"click": 0.0, "app": None, "user": None, "price": None},
    {"click": 1.0, "app": "5", "user": -(2**40), "price": 0.0},
]


def rows(source, read=read_tables, **options):
    return [row for table in read(source, SCHEMA, **options) for row in table.to_pylist()]


@pytest.fixture
def parts(tmp_path):
    """Three files of two rows each; the columns of the last one stand otherwise."""
    for number in (2, 10):
        text = HEADER + f"1,x,a{number},1,1\n0,x,b{number},2,2\n"
        path = tmp_path / f"train-{number}.csv.gz"
        path.write_bytes(gzip.compress(text.encode()))
    text = "price,user,app,note,click\n1,1,a3,x,1\n2,2,b3,x,0\n"
    (tmp_path / "train-3.csv.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path / "train-*.csv.gz"


def test_files_of_a_pattern_are_read_in_the_order_of_their_names(parts):
    assert [path.name for path in find_files(parts)] == [
        "train-10.csv.gz", "train-2.csv.gz", "train-3.csv.gz",
    ]  # fmt: skip
    report = RowReport()
    apps = [row["app"] for row in rows(parts, report=report)]
    assert apps == ["a10", "b10", "a2", "b2", "a3", "b3"]
    assert (report.read, report.kept) == (6, 6)


def test_bad_rows_are_counted_over_all_files_and_reported_by_file(parts):
    for name, line in (("train-10.csv.gz", "1,x"), ("train-3.csv.gz", "1,1,a,x,7")):
        path = parts.with_name(name)
        text = gzip.decompress(path.read_bytes()).decode()
        path.write_bytes(gzip.compress(f"{text}{line}\n".encode()))
    report = RowReport()
    assert len(rows(parts, max_bad_rows=2, report=report)) == 6
    assert (report.read, report.rejected) == (8, 2)
    with pytest.raises(UserError, match=r"train-3.csv.gz, line 4, column click: value '7'.*2 bad"):
        rows(parts, max_bad_rows=1)


def test_a_name_with_the_signs_of_a_pattern_is_that_file(tmp_path):
    for name in ("[a]*.csv", "a.csv"):
        (tmp_path / name).write_text(HEADER + f"1,x,{name},1,1\n")
    assert [row["app"] for row in rows(tmp_path / "[a]*.csv")] == ["[a]*.csv"]


def test_what_matches_nothing_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"none-\*\.csv: no file matches"):
        rows(tmp_path / "none-*.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="no file matches"):
        rows(tmp_path / "*.csv")


def test_one_of_several_files_may_be_without_rows(parts):
    parts.with_name("train-1.csv.gz").write_bytes(gzip.compress(HEADER.encode()))
    assert len(rows(parts)) == 6
    for path in find_files(parts):
        path.write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(UserError, match=r"train-\*.csv.gz: the files hold no rows"):
        rows(parts)


def write_parquet(path, **columns):
    pa_parquet.write_table(pa.table({**ROWS, **columns}), path)


def test_parquet_files_that_differ_are_named_both(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_parquet(first)
    write_parquet(second, user=[3.0, None, 1.0])
    with pytest.raises(UserError, match="column user is integer in the first and floating in the"):
        rows(tmp_path / "*.parquet")
    with pytest.raises(UserError) as raised:
        rows(tmp_path / "*.parquet")
    assert str(first) in str(raised.value)
    assert str(second) in str(raised.value)
    pa_parquet.write_table(pa.table(ROWS).drop_columns("app"), second)
    with pytest.raises(UserError, match=r"column app is text in the first and missing in the"):
        rows(tmp_path / "*.parquet")


def test_parquet_files_that_differ_in_width_encoding_or_ignored_columns_are_alike(tmp_path):
    write_parquet(tmp_path / "a.parquet")
    write_parquet(
        tmp_path / "b.parquet",
        app=pa.array(ROWS["app"]).dictionary_encode(),
        price=pa.array(ROWS["price"], pa.float32()),
        click=pa.array(ROWS["click"], pa.int8()),
        note=[1, 2, 3],
    )
    write_parquet(tmp_path / "c.parquet", user=[None] * 3)
    assert rows(tmp_path / "[ab].parquet") == TYPED * 2
    assert rows(tmp_path / "*.parquet")[-1] == {**TYPED[-1], "user": None}
    # Where every column is kept, as in scoring, every one must be there.
    with pytest.raises(UserError, match="column note is missing in the first and integer in"):
        list(read_rows(tmp_path / "[ab].parquet", SCHEMA))


def test_a_split_may_be_several_files(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "[parts]"
    whole.mkdir()
    click_logs.write_frappe(whole, {"train": 90, "valid": 30, "test": 30})
    shutil.copytree(whole, parts)
    header, *lines = (parts / "train.csv").read_text().splitlines()
    (parts / "train.csv").unlink()
    for number in range(3):
        part = [header, *lines[30 * number : 30 * (number + 1)]]
        (parts / f"train-{number}.csv").write_text("\n".join(part) + "\n")
    assert find_split(parts, "train", (".csv",)).endswith("train-*.csv")
    one = prepare("frappe", tmp_path / "one", source=whole)
    three = prepare("frappe", tmp_path / "three", source=parts)
    assert one == three
    shutil.copy(whole / "train.csv", parts)
    with pytest.raises(UserError, match=r"has both train\.csv and train-\*\.csv; keep one"):
        prepare("frappe", tmp_path / "none", source=parts)


class Stream:
    """Another library's table, known by the Arrow protocol alone."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def test_tables_in_memory_are_typed_like_files():
    table = pa.table(ROWS)
    # polars has texts as views, which pyarrow reads in any version, and before 26 exports wrongly.
    for source in (ROWS, table, Stream(table), Stream(polars.from_arrow(table))):
        assert typed_table(source, SCHEMA).to_pylist() == TYPED
    assert typed_table(table.slice(0, 0), SCHEMA).to_pylist() == []
    unlabelled = typed_table(table.drop_columns("click"), SCHEMA)
    assert unlabelled.column_names == ["app", "user", "price"]


def test_numbers_are_categories_as_their_text():
    # 5 becomes 5.0 where pandas meets a missing value.
    for cells in ([5, None], [5.0, None], [5.0, float("nan")], ["5", ""]):
        table = {name: column[:2] for name, column in ROWS.items()} | {"app": cells}
        assert [row["app"] for row in typed_table(table, SCHEMA).to_pylist()] == ["5", None]


def test_a_bad_row_of_a_table_is_named_by_its_number():
    many = {name: cells * 40_000 for name, cells in ROWS.items()}
    many["price"] = [*many["price"][:100_000], float("inf"), *many["price"][100_001:]]
    with pytest.raises(UserError, match="table, row 100001, column price: value 'inf' is not"):
        typed_table(many, SCHEMA)
    report = RowReport()
    assert typed_table(many, SCHEMA, max_bad_rows=1, report=report).num_rows == 119_999
    assert (report.read, report.kept, report.rejected) == (120_000, 119_999, 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table(ROWS).drop_columns("app"), "table: column 'app' is missing; found"),
        ("rows.csv", "rows of type str cannot be read"),
        ([[1, 2]], "rows of type list cannot be read"),
        ({**ROWS, "app": ["a"]}, "rows of type dict cannot be read"),
        ({**ROWS, "app": [["a"]] * 3}, r"table, column app: cells of type list<.*> cannot be read"),
    ],
    ids=["missing", "str", "list", "ragged", "nested"],
)
def test_what_is_not_a_table_of_the_schema_is_reported(table, message):
    with pytest.raises(UserError, match=message):
        typed_table(table, SCHEMA)


def test_a_label_is_asked_for_where_it_must_be():
    with pytest.raises(UserError, match="column 'click' is missing"):
        typed_table(pa.table(ROWS).drop_columns("click"), SCHEMA, labelled=True)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_other_libraries_are_tables(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(ROWS)
    assert typed_table(frame, SCHEMA).to_pylist() == TYPED
    coded = frame["app"].astype("category") if library == "pandas" else frame["app"].cast(
        frames.Categorical
    )  # fmt: skip
    frame = frame.assign(app=coded) if library == "pandas" else frame.with_columns(coded)
    assert typed_table(frame, SCHEMA).to_pylist() == TYPED


@settings(max_examples=50, deadline=None)
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from([0, 1]),
            st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
            st.one_of(st.none(), st.integers(-(2**53), 2**53)),
            st.one_of(st.none(), st.floats(-1e9, 1e9)),
        ),
        min_size=1,
    )
)
def test_a_table_and_its_parquet_file_are_read_alike(tmp_path_factory, cells):
    click, app, user, price = map(list, zip(*cells, strict=True))
    kinds = (pa.int64(), pa.string(), pa.int64(), pa.float64())
    arrays = [pa.array(c, k) for c, k in zip((click, app, user, price), kinds, strict=True)]
    table = pa.table(arrays, names=["click", "app", "user", "price"])
    path = tmp_path_factory.mktemp("alike") / "a.parquet"
    pa_parquet.write_table(table, path)
    typed = typed_table(table, SCHEMA)
    assert rows(path) == typed.to_pylist()
    np.testing.assert_array_equal(typed["user"].is_null(), [u is None for u in user])
