"""Data sets of libsvm, libfm and libffm files, encoded as tables are."""

import csv
import dataclasses
import gzip
import re

import numpy as np
import pyarrow as pa
import pytest

from deepfm_jax import (
    Categorical,
    Label,
    MultiValued,
    Numeric,
    UserError,
)
from deepfm_jax.datasets import Frappe
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from tests import click_logs
from tests.encoders import field_rows
from tests.libsvm_parser import naive

SPLITS = ("train", "valid", "test")


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
        ("a.svm", "1 3:1\n0 4:-2\n", "line 2: field_1 has several ids, and 4:-2 is negative"),
        ("a.svm", "1 3:1 4:1\n0 4:-2\n", "line 2: features has several ids, and 4:-2 is neg"),
        ("a.ffm", "1\n0\n", "its rows have labels but no features"),
        ("a.ffm", "1 x\n", "line 1: 'x' is not field:id:value"),
        ("a.svm", "\n", "the file holds no rows"),
        ("a.svm", "", "the file is empty"),
    ],
)
def test_what_has_no_schema_is_reported(tmp_path, name, text, message):
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


def test_a_folder_without_such_files_or_with_two_is_reported(tmp_path):
    (tmp_path / "train.csv").write_text("label,a\n1,2\n")
    with pytest.raises(UserError, match=r"no file for split 'train'; looked for train\.libsvm"):
        prepare("libsvm", tmp_path / "out", source=tmp_path)
    for name in ("a.train.libfm", "b.train.libfm"):
        (tmp_path / name).write_text("1 3:1\n")
    with pytest.raises(UserError, match=r"has both [ab]\.train\.libfm and [ab]\.train\.libfm"):
        prepare("libsvm", tmp_path / "out", source=tmp_path)
