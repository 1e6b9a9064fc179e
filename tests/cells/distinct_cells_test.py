"""Dictionary-encoded columns are typed, counted and encoded as plain ones are."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Label, Numeric, Schema, TextFormat, Timestamp
from deepfm_jax.cells.text import rows_with
from deepfm_jax.encoding.encoder import fit
from deepfm_jax.readers.sources import RowReport, read_rows, read_tables, typed_table

COLUMNS = (
    Label("y"),
    Categorical("text", min_count=2),
    Categorical("number", dtype="integer", separate_missing=True),
    Categorical("hashed", hash_buckets=7),
    Categorical("id", dtype="id", size=5),
    Numeric("log"),
    Numeric("bucket", transform="log2_floor"),
    Timestamp("time", format="unix"),
)
CELLS = st.sampled_from(
    ["", "", "0", "1", "1", " 1", "2 ", "+3", "4", "007", "-5", "1.5", "1e3", "nan", "inf", "x",
     "x ", " x", "NA", "ä", "\0"]
)  # fmt: skip
TEXTS = (TextFormat("\t", quoting=False), TextFormat(trim=True, missing=("NA", "x")))


def read(reader, path, schema):
    """What a reader makes of all rows, with all that it rejects."""
    rejected = []
    report = RowReport(on_rejected=rejected.append)
    rows = [row for table in reader(path, schema, report) for row in table.to_pylist()]
    return rows, rejected, (report.read, report.kept)


def distinct(path, schema, report):
    return read_tables(path, schema, max_bad_rows=1000, report=report, block_bytes=300)


def plain(path, schema, report):
    for rows in read_rows(
        path, schema, labelled=True, max_bad_rows=1000, report=report, block_bytes=300
    ):
        yield rows.typed


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=len(COLUMNS), max_size=len(COLUMNS)), min_size=1),
    text=st.sampled_from(TEXTS),
)
def test_text_is_typed_and_rejected_alike(tmp_path_factory, rows, text):
    path = tmp_path_factory.mktemp("cells") / "train.csv"
    good = ["1", "x", "1", "x", "1", "1", "1", "1"]
    lines = [text.delimiter.join(cells) for cells in [good, *rows, good]]
    header = [text.delimiter.join(column.name for column in COLUMNS)]
    path.write_text("\n".join(header + lines) + "\n", newline="")
    schema = Schema(COLUMNS, text)
    left, right = read(distinct, path, schema), read(plain, path, schema)
    assert repr(left) == repr(right)


@given(
    cells=st.lists(
        st.tuples(st.sampled_from([None, "", "a", "b ", "b", "c"]), st.integers(0, 4)), min_size=1
    )
)
def test_tables_are_fitted_and_encoded_alike(cells):
    schema = Schema((Label("y"), Categorical("c", min_count=2), Categorical("h", hash_buckets=3),
                     Categorical("i", "integer"), Numeric("n")))  # fmt: skip
    texts, numbers = zip(*cells, strict=True)
    columns = {
        "y": pa.array([1] * len(cells)),
        "c": pa.array(texts, pa.string()),
        "h": pa.array(texts, pa.string()),
        "i": pa.array(numbers, pa.int64()),
        "n": pa.array(numbers, pa.int64()),
    }
    tables = [
        typed_table(pa.table(columns), schema),
        typed_table(
            pa.table({name: column.dictionary_encode() for name, column in columns.items()}),
            schema,
        ),
    ]
    left, right = (fit([table, table.slice(1)], schema) for table in tables)
    assert left.fingerprint() == right.fingerprint()
    for one, other in ((left.encode(tables[0]), left.encode(tables[1])),):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.values, other.values)


def test_a_dictionary_may_hold_what_no_row_has():
    indices = pa.array([1, None, 1], pa.int8())
    columns = {
        "y": pa.array([1, 0, 1]),
        "n": pa.DictionaryArray.from_arrays(indices, pa.array(["no number", "2"])),
        "c": pa.DictionaryArray.from_arrays(indices, pa.array(["\0", "c"])),
    }
    table = typed_table(pa.table(columns), Schema((Label("y"), Numeric("n"), Categorical("c"))))
    assert table["n"].to_pylist() == [2, None, 2]
    assert table["c"].to_pylist() == ["c", None, "c"]


@pytest.mark.parametrize("cells", [["a", "b\n", None, "b\n"], ["a", None], [None], []])
def test_rows_with_a_character_are_found_in_both(cells):
    plain = pa.array(cells, pa.string())
    expected = [row for row, cell in enumerate(cells) if cell is not None and "\n" in cell]
    assert rows_with(plain, "\n").tolist() == expected
    assert rows_with(plain.dictionary_encode(), "\n").tolist() == expected
