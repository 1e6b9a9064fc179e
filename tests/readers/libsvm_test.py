"""libsvm, libfm and libffm, read as a naive parser reads them."""

import gzip
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepfm_jax import (
    Categorical,
    Ignored,
    Label,
    Numeric,
    Schema,
    UserError,
)
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.readers.libsvm_files import read_blocks
from deepfm_jax.readers.libsvm_text import parse_rows
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_rows, read_tables
from tests.libsvm_parser import naive

THREE = Schema(
    (Label("click"), Categorical("user", dtype="integer"), Ignored("note"), Numeric("price"))
)
FIELDS = Schema(
    (Label("click"), Numeric("field_7"), Categorical("field_2", dtype="integer"))
)  # fmt: skip


def as_naive(rows):
    """What ``parse_rows`` gave, in the form of ``naive``."""
    parts = [rows.ids.tolist(), rows.values.tolist()]
    if rows.fields is not None:
        parts.insert(0, rows.fields.tolist())
    features = list(zip(*parts, strict=True))
    spans = zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True)
    return [
        (line, label, features[start:stop])
        for line, label, (start, stop) in zip(
            rows.lines.tolist(), rows.labels.tolist(), spans, strict=True
        )
    ]


PIECES = [
    *(b"\n", b"\n", b"\n1 ", b"\r\n", b" ", b" ", b"\t", b"\x0b", b":", b"#", b"1", b"0", b"-1"),
    *(b"+1", b" 3:1", b" 12:0.5", b" 2:7:1", b"4:+2e1", b"x", b"\0", b"\xff", b"nan", b"1e5", b"."),
    *(b"-", b"0x1f", b"1e999", b"9223372036854775807:1", b"9223372036854775808:1", b"007:1"),
]
CONTENT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.binary())


@settings(max_examples=500, deadline=None)
@given(content=CONTENT, with_fields=st.booleans(), width=st.sampled_from([None, 0, 1, 2]))
@example(content=b"1 3: 4:1\n", with_fields=False, width=None)
@example(content=b":\n1 :\n1 ::\n: 1\n", with_fields=True, width=None)
@example(content=b"1 9223372036854775807:1\n1 x:1\n", with_fields=False, width=None)
def test_a_block_is_parsed_as_line_by_line(content, with_fields, width):
    rows, malformed = parse_rows(content + b"\n", with_fields=with_fields, width=width)
    expected, bad = naive(content, with_fields, width)
    assert as_naive(rows) == expected
    assert [row.position for row in malformed] == bad
    for row in malformed:
        assert row.text == content.split(b"\n")[row.position - 1].decode(
            errors="backslashreplace"
        ).rstrip("\r")


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.sampled_from([b"1 3:1 4:.5", b"", b"# c", b"0 7:1 # c", b"1", b"1 x"])),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    block=st.integers(20, 60),
    suffix=st.sampled_from(["", ".gz", ".zst"]),
)
def test_blocks_of_any_size_hold_the_same_rows(tmp_path_factory, lines, end, last, block, suffix):
    content = end.join([*lines, b"1 1:1" if last else b""])
    path = tmp_path_factory.mktemp("any") / f"a.svm{suffix}"
    packed = {"": bytes, ".gz": gzip.compress, ".zst": lambda c: pa.compress(c, "zstd", True)}
    path.write_bytes(packed[suffix](content))
    if not content:
        with pytest.raises(UserError, match=r"a\.svm.*: the file is empty"):
            list(read_blocks(path, block_bytes=block))
        return
    blocks = list(read_blocks(path, block_bytes=block))
    expected, bad = naive(content)
    assert [row for rows, _ in blocks for row in as_naive(rows)] == expected
    assert [row.position for _, malformed in blocks for row in malformed] == bad


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("a.svm", b"1 3:1 x:1", "feature 'x:1': id 'x' is not an integer from 0 in '1 3:1 x:1'"),
        ("a.svm", b"1 -3:1", "feature '-3:1': id '-3' is not an integer from 0"),
        ("a.svm", b"1 3:nan", "feature '3:nan': value 'nan' is not a finite number"),
        ("a.svm", b"1 3:1e999", "feature '3:1e999': value '1e999' is not a finite number"),
        ("a.svm", b"1 3: 4:1", "feature '3:': value '' is not a finite number"),
        ("a.svm", b"1 2:3:1", "'2:3:1' is not id:value"),
        ("a.svm", b"1 3", "'3' is not id:value"),
        ("a.svm", b"3:1 4:1", "label '3:1' is not a number"),
        ("a.svm", b"yes 4:1", "label 'yes' is not a number"),
        ("a.svm", b"1 qid:4 4:1", "feature 'qid:4': id 'qid'"),
        ("a.svm", b"1 4:1", "1 feature instead of 3 in '1 4:1'"),
        ("a.svm", b"1", "0 features instead of 3"),
        ("a.ffm", b"1 3:1", "'3:1' is not field:id:value"),
        ("a.ffm", b"1 x:3:1", "feature 'x:3:1': field 'x' is not an integer from 0"),
        ("a.ffm", b"1 2:x:1", "feature '2:x:1': id 'x'"),
        ("a.ffm", b"1 5:3:1", "field 5 has no column field_N in the schema"),
        ("a.ffm", b"1 2:3:1 2:4:1", "column field_2: 2 features of one field"),
        ("a.ffm", b"1 2:3:.5", "column field_2: value '3:0.5' is an id with a value other than 1"),
        ("a.ffm", b"1 7:9:.5", "column field_7: value '9:0.5' does not have id 8, the first"),
        ("a.svm", b"1 3:2 3:1 3:1", "column user: value '3:2' is an id with a value other than 1"),
        ("a.svm", b"1 3:1 3:2 3:1", "column price: value '3:1' does not have id 9, the first"),
        ("a.svm", b"2 3:1 3:2 9:1", "column click: value '2' is not a label, 0 or 1"),
        ("a.svm", b"-1 3:1 3:2 9:1", "column click: value '-1' is not a label, 0 or 1"),
        ("a.svm", b"1.0000001 3:1 3:2 9:1", "column click: value '1.0000001' is not a label"),
    ],
)
def test_a_bad_row_is_named_by_line_feature_and_value(tmp_path, name, line, reason):
    path, schema = tmp_path / name, FIELDS if name == "a.ffm" else THREE
    good = b"0 2:3:1 7:8:2\n" if name == "a.ffm" else b"0 1:1 2:1 9:.5\n"
    path.write_bytes(good + b"# comment\n" + line + b"\n" + good)
    with pytest.raises(UserError) as raised:
        list(read_tables(path, schema))
    assert str(raised.value).startswith(f"{path}, line 3, {reason}")
    assert "pass --max_bad_rows=N" in str(raised.value)
    report = RowReport()
    (table,) = read_tables(path, schema, max_bad_rows=1, report=report)
    assert (report.read, report.kept, report.rejected, table.num_rows) == (3, 2, 1, 2)


def test_labels_of_minus_one_and_one(tmp_path):
    path = tmp_path / "a.svm"
    path.write_text("+1 1:1 2:1 9:1\n-1 1:1 2:1 9:1\n1.0 1:1 2:1 9:1\n")
    (table,) = read_tables(path, THREE)
    assert table["click"].to_pylist() == [1, 0, 1]
    path.write_text("+1 1:1 2:1 9:1\n-1 1:1 2:1 9:1\n" * 40 + "0 1:1 2:1 9:1\n")
    with pytest.raises(UserError, match="line 81, column click: value '0' is not -1 or 1"):
        list(read_tables(path, THREE, block_bytes=50))


def test_fields_that_a_row_lacks_are_missing_and_their_order_is_free(tmp_path):
    path = tmp_path / "a.libffm"
    path.write_text("1 7:8:.5 2:3:1\n0 2:4:1 7:8:-2\n0 7:8:1\n1\n")
    (table,) = read_tables(path, FIELDS)
    assert table.to_pydict() == {
        "click": [1, 0, 0, 1],
        "field_7": [0.5, -2, 1, None],
        "field_2": [3, 4, None, None],
    }
    with pytest.raises(UserError, match="such as field_0; 'user' is not"):
        list(read_tables(path, THREE))


def test_ignored_features_are_read_where_every_column_is(tmp_path):
    path = tmp_path / "a.libfm"
    path.write_text("1 5:1 6:2 7:.5\n0 8:1 9:1 7:1\n")
    (rows,) = read_rows(path, THREE)
    assert rows.raw.to_pydict() == {
        "click": ["1", "0"], "user": [5, 8], "note": [6, 9], "price": [0.5, 1],
    }  # fmt: skip
    assert rows.typed.column_names == ["click", "user", "price"]


def test_features_of_a_row_as_lists():
    rows, _ = parse_rows(b"1 0:3:1 1:4:.5 0:5:2\n0\n1 1:6:1\n", with_fields=True)
    assert rows.lists(rows.fields == 0, weighted=False).to_pylist() == [[3, 5], [], []]
    pairs = rows.lists(np.ones(4, bool), weighted=True).to_pylist()
    assert [[tuple(pair.values()) for pair in row] for row in pairs] == [
        [(3, 1.0), (4, 0.5), (5, 2.0)],
        [],
        [(6, 1.0)],
    ]
    assert [list(pair) for row in pairs for pair in row] == [["value", "weight"]] * 4


@pytest.mark.parametrize(
    ("content", "block", "message"),
    [
        (b"", 1 << 16, "a.svm: the file is empty"),
        (b"\n# nothing\n", 1 << 16, "a.svm: the file holds no rows"),
        (b"0 1:1 2:1 9:1\n1 " + b"1:1 " * 30 + b"\n", 100,
         "a.svm, line 2: the row is longer than 100 bytes"),
        (b"1 " + b"1:1 " * 300, 100, "a.svm, line 1: the row is longer than 100 bytes"),
        (b"\xef\xbb\xbf0 1:1 2:1\n", 1 << 16, "a.svm, line 1, 2 features instead of 3"),
    ],
)  # fmt: skip
def test_a_strange_file_is_named(tmp_path, content, block, message):
    path = tmp_path / "a.svm"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        list(read_tables(path, THREE, block_bytes=block))


def test_a_truncated_file_is_reported(tmp_path):
    path = tmp_path / "train.libfm.gz"
    path.write_bytes(gzip.compress(b"0 1:1 2:1 9:1\n1 1:1 2:1 9:1\n" * 5000)[:-40])
    with pytest.raises(UserError, match=r"train\.libfm\.gz: cannot be read .*truncated\?"):
        list(read_tables(path, THREE))
    with pytest.raises(UserError, match=r"train\.libfm\.gz: cannot be read .*truncated\?"):
        infer_schema(path)


def test_files_of_features_and_of_cells_are_not_mixed(tmp_path):
    (tmp_path / "a.csv").write_text("click,user,note,price\n1,2,3,4\n")
    (tmp_path / "b.svm").write_text("1 2:1 3:1 4:1\n")
    with pytest.raises(UserError, match="column click is text in the first and of features in the"):
        list(read_tables(tmp_path / "*", THREE))
