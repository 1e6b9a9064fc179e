"""Beam's DirectRunner and the local path agree on all columns, files and extended encoders."""

import dataclasses
import uuid

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from deepfm_jax import (
    Categorical,
    History,
    Label,
    MultiValued,
    Numeric,
    Schema,
    Timestamp,
    UserError,
    Vector,
    Weight,
)
from deepfm_jax.datasets.blocks import BLOCK_ROWS
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder
from tests import click_logs
from tests.both_ways import ENGINE, prepare_twice, same_error, write_parts

pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install '.[beam]'")

# Beam's own code raises deprecation warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SPLITS = ("train", "valid", "test")
# Columns that share a vocabulary come both before and after its owner.
SCHEMA = Schema(
    (
        History("seen", dtype="integer", max_length=4, shares_with="item"),
        Label("click"),
        Categorical("item", dtype="integer", min_count=12, separate_missing=True),
        Categorical("next", dtype="integer", shares_with="item"),
        Label("ordered", positive="yes"),
        Weight("shown"),
        Categorical("user", group=True, max_size=25),
        MultiValued("tags", max_length=3, weight_separator=":", combiner="sqrtn", min_count=2),
        Numeric("price", transform="quantile", buckets=6),
        Vector("picture", 2),
        Timestamp("at", format="%Y-%m-%d", parts=("weekday",)),
    )
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def visits(rows, seed, items=range(30)):
    """Rows of SCHEMA as text cells, some of them missing."""
    rng = np.random.default_rng(seed)

    def joined(values, most):
        return "|".join(map(str, rng.choice(values, rng.integers(0, most))))

    def row():
        cells = {
            "seen": joined(items, 8),
            "click": rng.integers(0, 2),
            "item": rng.choice([*items, ""]),
            "next": rng.choice(items),
            "ordered": rng.choice(["yes", "no", ""]),
            "shown": rng.choice([0.5, 1, 3]),
            "user": rng.choice(["", *(f"u{user}" for user in range(40))]),
            "tags": joined([f"t{tag}:{tag % 3 / 2}" for tag in range(12)], 6),
            "price": rng.choice(["", "-0", "0", "0.25", "1e3", "7"]),
            "picture": f"{rng.normal():.3f}|{rng.normal():.3f}",
            "at": f"2024-03-{rng.integers(1, 29):02}",
        }
        return ",".join(str(cells[column.name]) for column in SCHEMA.columns)

    return [row() for _ in range(rows)]


def write_visits(folder, split, sizes, seed, items=range(30), extension=".csv"):
    """Writes rows to files of these sizes, each with a header."""
    lines = visits(sum(sizes), seed, items)
    header = ",".join(column.name for column in SCHEMA.columns)
    starts = np.cumsum([0, *sizes[:-1]]) + np.arange(len(sizes))
    for start in starts:
        lines.insert(start, header)
    write_parts(folder, split, lines, [size + 1 for size in sizes], extension)


def options(schema=SCHEMA, **more):
    return BuildOptions(schema=schema.to_dict(), **more)


def encoder_of(folder, name="tabular"):
    return Encoder.load(dataset_folder(name, folder))


def values_of(encoder, name):
    fields = [field.name for field in encoder.schema.fields]
    return encoder.coders[fields.index(name)].vocabulary.to_pylist()


def test_every_kind_of_column_in_text(tmp_path, source):
    write_visits(source, "train", (2500, 41, 2200), 0, extension=".csv.gz")
    write_visits(source, "valid", (150, 90), 1)
    write_visits(source, "test", (200,), 2)
    summaries = prepare_twice("tabular", tmp_path, source, options())
    train = summaries["train"]
    assert train.rows > BLOCK_ROWS
    assert list(train.positives_of) == ["click", "ordered"]
    assert train.positives == train.positives_of["click"] != train.positives_of["ordered"]
    assert list(train.missing_of) == ["ordered"]
    missing = np.load(dataset_folder("tabular", tmp_path / "beam") / "missing_train.npy")
    assert missing.sum(axis=0).tolist() == [0, train.missing_of["ordered"]]
    assert list(train.longer) == ["seen", "tags"]
    assert all(0 < longer < train.rows for longer in train.longer.values())
    folder = dataset_folder("tabular", tmp_path / "beam")
    positives = np.load(folder / "positives_train.npy")
    assert positives.shape == (2, 2)
    assert positives.sum(axis=0).tolist() == list(train.positives_of.values())


def test_a_value_may_be_frequent_only_over_all_columns_and_files(tmp_path, source):
    write_visits(source, "train", (20, 1, 25), 0, range(12))
    write_visits(source, "valid", (30,), 1)
    write_visits(source, "test", (30,), 2)
    prepare_twice("tabular", tmp_path, source, options())
    shared = values_of(encoder_of(tmp_path / "beam"), "item")
    columns = tuple(
        dataclasses.replace(column, shares_with=None)
        if getattr(column, "shares_with", None)
        else column
        for column in SCHEMA.columns
    )
    prepare("tabular", tmp_path / "apart", source=source, options=options(Schema(columns)))
    assert len(shared) > 5
    assert values_of(encoder_of(tmp_path / "apart"), "item") == []


@pytest.mark.parametrize("time_column", [None, "at"])
def test_every_kind_of_column_in_one_source_that_is_split(tmp_path, source, time_column):
    write_visits(source, "log", (700, 3, 900), 0)
    chosen = options(time_column=time_column)
    summaries = prepare_twice("tabular", tmp_path, source / "log-*.csv", chosen)
    assert sum(summary.rows for summary in summaries.values()) == 1603


def test_a_dictionary_encoded_column_splits_by_time(tmp_path, source):
    # Numbers read from text stay dictionary-encoded, and rows are selected by them.
    write_visits(source, "log", (300, 200), 0, items=range(50))
    columns = tuple(
        Categorical("item", dtype="integer") if column.name == "item" else column
        for column in SCHEMA.columns
    )
    for path in source.iterdir():
        rows = path.read_text().splitlines()
        known = [row for row in rows if row.split(",")[2]]
        path.write_text("\n".join(known) + "\n")
    chosen = options(Schema(columns), time_column="item")
    summaries = prepare_twice("tabular", tmp_path, source / "log-*.csv", chosen)
    assert values_of(encoder_of(tmp_path / "beam"), "item")
    assert min(summary.rows for summary in summaries.values()) > 10


def test_lists_in_parquet(tmp_path, source):
    schema = Schema(
        (
            Label("click"),
            Categorical("item", min_count=3),
            History("seen", max_length=3, shares_with="item"),
            MultiValued("tags", dtype="integer", max_length=2, weight_separator=":", max_size=6),
        )
    )
    rng = np.random.default_rng(0)
    names = np.array([f"i{item}" for item in range(20)])
    for part, rows in enumerate((300, 2, 450)):
        tags = [
            [{"tag": int(tag), "weight": 0.5} for tag in rng.integers(0, 9, rng.integers(0, 4))]
            for _ in range(rows)
        ]
        table = pa.table(
            {
                "click": rng.integers(0, 2, rows),
                "item": pa.array(rng.choice(names, rows)).dictionary_encode(),
                "seen": [rng.choice(names, rng.integers(0, 6)).tolist() for _ in range(rows)],
                "tags": pa.array(
                    tags, pa.list_(pa.struct({"tag": pa.int64(), "weight": pa.float64()}))
                ),
            }
        )
        pa_parquet.write_table(table, source / f"day-{part}.parquet")
    summaries = prepare_twice("tabular", tmp_path, source / "day-*.parquet", options(schema))
    assert summaries["train"].longer["seen"] > 50


def libsvm_lines(rows, seed, negative, with_fields):
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        label = rng.choice([negative, 1])
        features = [f"{rng.integers(0, 30)}:1", f"77:{rng.integers(0, 9) / 4}"]
        if with_fields:
            features = [f"{field}:{each}" for field, each in enumerate(features)]
            features += [f"2:{tag}:1" for tag in rng.integers(100, 120, rng.integers(0, 4))]
        lines.append(" ".join([str(label), *features]))
    return lines


@pytest.mark.parametrize("extension", [".libsvm", ".ffm", ".libfm.gz"])
def test_files_of_features(tmp_path, source, extension):
    for seed, split in enumerate(SPLITS):
        lines = libsvm_lines(500, seed, (-1, 0, -1)[seed], ".ffm" in extension)
        write_parts(source, split, lines, (260, 3, 237), extension)
    summaries = prepare_twice("libsvm", tmp_path, source)
    field = "field_0" if extension == ".ffm" else "field_1"
    assert [summary.rows for summary in summaries.values()] == [500, 500, 500]
    values = values_of(encoder_of(tmp_path / "beam", "libsvm"), field)
    assert len(values) > 20


def test_bad_rows_of_lists_and_features(tmp_path, source):
    for seed, split in enumerate(SPLITS):
        lines = libsvm_lines(300, seed, 0, with_fields=False)
        lines[40], lines[270] = "1 5:2 77:1", "0 5:1"
        write_parts(source, split, lines, (250, 50), ".libsvm")
    summaries = prepare_twice("libsvm", tmp_path, source, BuildOptions(max_bad_rows=2))
    assert [summary.rejected for summary in summaries.values()] == [2, 2, 2]
    message = same_error("libsvm", tmp_path / "again", source, BuildOptions(max_bad_rows=1))
    assert "train-1.libsvm, line 21" in message


@pytest.mark.parametrize("max_size", [None, 22])
def test_an_encoder_grows(tmp_path, source, max_size):
    item = dataclasses.replace(SCHEMA.columns[2], max_size=max_size)
    schema = Schema((*SCHEMA.columns[:2], item, *SCHEMA.columns[3:]))
    for seed, split in enumerate(SPLITS):
        write_visits(source, split, (200,), seed, range(20))
    prepare("tabular", tmp_path / "old", source=source, options=options(schema))
    old = encoder_of(tmp_path / "old")
    later = tmp_path / "later"
    later.mkdir()
    for seed, split in enumerate(SPLITS, start=7):
        write_visits(later, split, (150, 170), seed, range(10, 35))
    folder = str(dataset_folder("tabular", tmp_path / "old"))
    prepare_twice("tabular", tmp_path, later, options(schema, extend_from=folder))
    before, after = (values_of(each, "item") for each in (old, encoder_of(tmp_path / "beam")))
    assert after[: len(before)] == before
    assert len(after) == (max_size or 35) > len(before)


def test_an_encoder_grows_by_rows_that_are_drawn(tmp_path, source):
    write_visits(source, "train", (500,), 0, range(20))
    prepare("tabular", tmp_path / "old", source=source, options=options())
    later = tmp_path / "later"
    later.mkdir()
    write_visits(later, "train", (300, 20, 400), 1, range(40))
    folder = str(dataset_folder("tabular", tmp_path / "old"))
    prepare_twice("tabular", tmp_path, later, options(extend_from=folder))
    sizes = [len(values_of(encoder_of(tmp_path / out), "item")) for out in ("old", "beam")]
    assert sizes == [20, 40]


@pytest.fixture
def bucket():
    """A URL of an empty folder in memory."""
    system, name = fsspec.filesystem("memory"), uuid.uuid4().hex
    system.mkdir(name)
    yield f"memory://{name}"
    system.rm(name, recursive=True)


def test_files_behind_a_url(tmp_path, source, bucket):
    write_visits(source, "train", (300, 200), 0, extension=".csv.gz")
    write_visits(source, "valid", (100,), 1)
    write_visits(source, "test", (100,), 2)
    for path in source.iterdir():
        system, name = fsspec.core.url_to_fs(f"{bucket}/{path.name}")
        system.pipe(name, path.read_bytes())
    summaries = prepare_twice("tabular", tmp_path, bucket, options())
    assert summaries["train"].rows == 500
    # The same rows as on disk.
    assert prepare("tabular", tmp_path / "disk", source=source, options=options()) == summaries


def test_features_that_a_builder_makes_of_several_files_have_no_file(tmp_path, source):
    click_logs.write_movielens(source)
    with pytest.raises(UserError, match="'movielens' is not read from files that Beam workers"):
        prepare("movielens", tmp_path / "out", source=source, beam=ENGINE)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
