"""libsvm, libfm and libffm: read as a naive parser reads them, and encoded as tables are."""

import csv
import dataclasses
import gzip
import math
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
    MultiValued,
    Numeric,
    Schema,
    UserError,
)
from deepfm_jax.datasets import Frappe
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.libsvm_files import read_blocks
from deepfm_jax.readers.libsvm_text import parse_rows
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_rows, read_tables
from tests import click_logs
from tests.encoders import field_rows

SPLITS = ("train", "valid", "test")
THREE = Schema(
    (Label("click"), Categorical("user", dtype="integer"), Ignored("note"), Numeric("price"))
)
FIELDS = Schema(
    (Label("click"), Numeric("field_7"), Categorical("field_2", dtype="integer"))
)  # fmt: skip


def number(token):
    if not re.fullmatch(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", token):
        raise ValueError
    if not math.isfinite(float(token)):
        raise ValueError
    return float(token)


def whole(token):
    if not re.fullmatch(rb"-?\d+", token) or not 0 <= int(token) < 2**63:
        raise ValueError
    return int(token)


def naive(content, with_fields=False, width=None):
    """Rows (line, label, features), and the lines that are none."""
    rows, bad = [], []
    for line, text in enumerate(content.split(b"\n"), start=1):
        tokens = text.split(b"#")[0].split()
        if not tokens:
            continue
        try:
            features = []
            for token in tokens[1:]:
                *front, value = token.split(b":")
                if len(front) != 1 + with_fields:
                    raise ValueError
                features.append((*map(whole, front), number(value)))
            if width is not None and len(features) != width:
                raise ValueError
            rows.append((line, number(tokens[0]), features))
        except ValueError:
            bad.append(line)
    return rows, bad


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
        ("a.ffm", b"1 2:3:.5", "column field_2: value '3:0.5' is an id with another value than 1"),
        ("a.ffm", b"1 7:9:.5", "column field_7: value '9:0.5' has another id than 8, the first"),
        ("a.svm", b"1 3:2 3:1 3:1", "column user: value '3:2' is an id with another value than 1"),
        ("a.svm", b"1 3:1 3:2 3:1", "column price: value '3:1' has another id than 9, the first"),
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
    with pytest.raises(UserError, match="line 81, column click: value '0' is not a label, -1 or 1"):
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
    with pytest.raises(UserError, match="as field_0; 'user' is not one of those"):
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


def test_a_truncated_file_is_told(tmp_path):
    path = tmp_path / "train.libfm.gz"
    path.write_bytes(gzip.compress(b"0 1:1 2:1 9:1\n1 1:1 2:1 9:1\n" * 5000)[:-40])
    with pytest.raises(UserError, match=r"train\.libfm\.gz: cannot be read .*truncated\?"):
        list(read_tables(path, THREE))
    with pytest.raises(UserError, match=r"train\.libfm\.gz: cannot be read .*truncated\?"):
        infer_schema(path)


def write_features(table, path, fields=()):
    """A CSV file with ids in all cells as features; a cell that is empty is none."""
    lines = []
    opened = gzip.open if table.suffix == ".gz" else open
    with opened(table, "rt", newline="") as file:
        for label, *cells in list(csv.reader(file))[1:]:
            names = [f"{field}:" for field in fields] or [""] * len(cells)
            pairs = zip(names, cells, strict=True)
            lines.append(" ".join([label, *(f"{name}{cell}:1" for name, cell in pairs if cell)]))
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)


def encoded(name, out, split):
    data = PreparedData(name, out)
    (batch,) = data.batches(split, data.rows(split))
    return batch


def assert_same_encoding(out, other):
    """Data set frappe under ``out`` and libsvm under ``other``: the columns' names alone differ."""
    encoders = [
        Encoder.load(dataset_folder(*each)) for each in (("frappe", out), ("libsvm", other))
    ]
    assert field_rows(encoders[0]) == field_rows(encoders[1])
    for split in SPLITS:
        first, second = encoded("frappe", out, split), encoded("libsvm", other, split)
        assert first.keys() == second.keys()
        for key, array in first.items():
            np.testing.assert_array_equal(second[key], array)


def test_the_frappe_sample_in_libfm_form_is_encoded_as_in_csv(data_folder, tmp_path):
    if not (data_folder / "frappe").is_dir():
        pytest.skip(f"{data_folder} holds no frappe")
    tables = {}
    for split in SPLITS:
        source, features = data_folder / "frappe" / f"{split}.csv.gz", tmp_path / f"{split}.libfm"
        write_features(source, features)
        schema = infer_schema(tmp_path / "train.libfm").schema
        tables[split] = [
            pa.concat_tables(read_tables(path, kind))
            for path, kind in ((source, Frappe.SCHEMA), (features, schema))
        ]
    encoders = [fit([tables["train"][0]], Frappe.SCHEMA), fit([tables["train"][1]], schema)]
    assert field_rows(encoders[0]) == field_rows(encoders[1])
    for pair in tables.values():
        csv_rows, features = (encoder.encode(t) for encoder, t in zip(encoders, pair, strict=True))
        np.testing.assert_array_equal(features.ids, csv_rows.ids)
        np.testing.assert_array_equal(features.labels, csv_rows.labels)
        assert features.values is None


def test_files_are_found_under_the_names_that_the_public_ones_have(tmp_path):
    for number, name in enumerate(("ml.train", "ml.validation", "ml.test")):
        write_numeric(tmp_path / f"{name}.libfm", 100 + number)
        text = (tmp_path / f"{name}.libfm").read_text()
        (tmp_path / f"{name}.libfm").write_text(re.sub(r" \d:(\d+):", r" \1:", text))
    summaries = prepare("libsvm", tmp_path / "out", source=tmp_path)
    assert [summaries[split].rows for split in SPLITS] == [100, 101, 102]


@pytest.mark.parametrize("form", ["libfm.gz", "ffm"])
def test_a_table_is_encoded_alike_in_every_form(tmp_path, form):
    source, other = tmp_path / "csv", tmp_path / "features"
    source.mkdir()
    other.mkdir()
    click_logs.write_frappe(source, {"train": 300, "valid": 50, "test": 50})
    fields = range(3, 13) if form == "ffm" else ()
    for split in SPLITS:
        path = source / f"{split}.csv"
        if form == "ffm":  # Cells may be missing there.
            header, *lines = path.read_text().splitlines()
            lines[7] = ",".join([lines[7].split(",")[0], "", *lines[7].split(",")[2:]])
            path.write_text("\n".join([header, *lines]) + "\n")
        write_features(path, other / f"{split}.{form}", fields)
    options = BuildOptions(min_count=15, crosses=())
    prepare("frappe", tmp_path / "a", source=source, options=options)
    prepare("libsvm", tmp_path / "b", source=other, options=options)
    assert_same_encoding(tmp_path / "a", tmp_path / "b")
    # And a schema of one's own reads them under its names.
    if form != "ffm":
        tables = list(read_tables(other / f"train.{form}", Frappe.SCHEMA))
        expected = fit(list(read_tables(source / "train.csv", Frappe.SCHEMA)), Frappe.SCHEMA)
        assert fit(tables, Frappe.SCHEMA).fingerprint() == expected.fingerprint()


def write_numeric(path, rows, seed=0):
    """A field of one id with values, and one of ids; the label follows both."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        value, id_ = rng.normal(), rng.integers(10, 15)
        label = int(rng.random() < 1 / (1 + np.exp(-value - (id_ - 12))))
        lines.append(f"{label} 0:1:{value:.4f} 1:{id_}:1")
    path.write_text("\n".join(lines) + "\n")


def test_one_file_is_split_by_a_draw_and_a_field_of_values_is_numeric(tmp_path):
    path, out = tmp_path / "rows.libffm", tmp_path / "out"
    write_numeric(path, 400)
    summaries = prepare("libsvm", out, source=path, options=BuildOptions(numeric="standardise"))
    assert sum(summary.rows for summary in summaries.values()) == 400
    encoder = Encoder.load(dataset_folder("libsvm", out))
    assert encoder.schema.columns == (
        Label("label"),
        Numeric("field_0", transform="standardise"),
        Categorical("field_1", dtype="integer"),
    )
    assert field_rows(encoder) == (2, 6)
    values = encoded("libsvm", out, "train")["values"]
    assert values[:, 0].std() == pytest.approx(1, abs=1e-5)
    assert prepare("libsvm", out, source=path, options=BuildOptions(numeric="standardise"))
    with pytest.raises(UserError, match="prepared with numeric=standardise, not numeric=None"):
        prepare("libsvm", out, source=path)


def test_rejected_rows_are_written_with_their_text(tmp_path):
    for number, split in enumerate(SPLITS):
        write_numeric(tmp_path / f"{split}.ffm", 300, number)
    lines = (tmp_path / "train.ffm").read_text().splitlines()
    lines[3], lines[8] = "1 0:1:.5 # torn 1:", "1 0:1:.5 1:x:1 # why"
    lines[5] = "1 0:1:.5 1:12:3"
    (tmp_path / "train.ffm").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    prepare("libsvm", out, source=tmp_path, options=BuildOptions(max_bad_rows=2))
    _, *rejected = (dataset_folder("libsvm", out) / "rejects.tsv").read_text().splitlines()
    assert [row.split("\t")[1:5] for row in rejected] == [
        [str(tmp_path / "train.ffm"), "6", "field_1", "12:3"],
        [str(tmp_path / "train.ffm"), "9", "", ""],
    ]
    assert rejected[1].split("\t")[-1] == lines[8]
    with pytest.raises(UserError, match="line 9, feature '1:x:1': id 'x' is not"):
        prepare("libsvm", tmp_path / "b", source=tmp_path, options=BuildOptions(max_bad_rows=1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.svm", "1 3:1 4:1\n0 3:2 5:1\n", None),
        ("a.svm", "1 3:1\n0 4:-2\n", "line 2: field_1 has several ids, and 4:-2 among them"),
        ("a.svm", "1 3:1 4:1\n0 4:-2\n", "line 2: features has several ids, and 4:-2 among"),
        ("a.ffm", "1\n0\n", "its rows have labels and no features"),
        ("a.ffm", "1 x\n", "line 1: 'x' is not field:id:value"),
        ("a.svm", "\n", "the file holds no rows"),
        ("a.svm", "", "the file is empty"),
    ],
)
def test_what_has_no_schema_is_told(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    if message is None:
        assert infer_schema(path, "clicked").schema.columns == (
            Label("clicked"),
            Numeric("field_1", transform="quantile"),
            Categorical("field_2", dtype="integer"),
        )
        return
    with pytest.raises(UserError, match=message) as raised:
        infer_schema(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.svm", "1 3:1 4:1\n0 5:1\n1\n", MultiValued("features", max_length=2)),
        ("a.svm", "1 3:1 4:.5\n0 5:1\n", MultiValued("features", max_length=2,
                                                   weight_separator=":")),
        ("a.svm", "1 3:1\n0 4:2\n", MultiValued("field_1", max_length=1, weight_separator=":")),
        ("a.ffm", "1 4:3:1 4:4:1\n0 4:3:1\n", MultiValued("field_4", max_length=2)),
    ],
)  # fmt: skip
def test_fields_of_several_values_are_found_and_encoded(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    schema = infer_schema(path).schema
    expected = dataclasses.replace(expected, dtype="integer", combiner="sum")
    assert schema.columns == (Label("label"), expected)
    (table,) = read_tables(path, schema)
    encoder = fit([table], schema)
    encoded = encoder.encode(table)
    vocabulary = encoder.coders[0].vocabulary.to_pylist()
    rows, _ = naive(text.encode(), with_fields=name.endswith("ffm"))
    for (_, label, features), ids, values, found in zip(
        rows, encoded.ids.tolist(), encoded.values.tolist(), encoded.labels[:, 0], strict=True
    ):
        assert found == label
        pairs = [(vocabulary.index(feature[-2]) + 1, feature[-1]) for feature in features]
        padding = [(-1, 0.0)] * (expected.max_length - max(len(pairs), 1))
        assert list(zip(ids, values, strict=True)) == [*(pairs or [(0, 1.0)]), *padding]


def test_a_folder_without_such_files_or_with_two_is_told(tmp_path):
    (tmp_path / "train.csv").write_text("label,a\n1,2\n")
    with pytest.raises(UserError, match=r"no file for split 'train'; looked for train\.libsvm"):
        prepare("libsvm", tmp_path / "out", source=tmp_path)
    for name in ("a.train.libfm", "b.train.libfm"):
        (tmp_path / name).write_text("1 3:1\n")
    with pytest.raises(UserError, match=r"has both [ab]\.train\.libfm and [ab]\.train\.libfm"):
        prepare("libsvm", tmp_path / "out", source=tmp_path)


def test_files_of_features_and_of_cells_are_not_mixed(tmp_path):
    (tmp_path / "a.csv").write_text("click,user,note,price\n1,2,3,4\n")
    (tmp_path / "b.svm").write_text("1 2:1 3:1 4:1\n")
    with pytest.raises(UserError, match="column click is text in the first and of features in the"):
        list(read_tables(tmp_path / "*", THREE))
