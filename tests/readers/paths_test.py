"""Raw files behind URLs: the same rows, the same messages, and no more bytes than are read."""

import gzip
import json
import uuid

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from deepfm_jax import Categorical, Label, Numeric, Schema, TextFormat, UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.readers.paths import find_files, source_path
from deepfm_jax.readers.sources import read_tables
from tests import click_logs

CSV = Schema((Label("click"), Categorical("app"), Numeric("price")))
TSV = Schema(CSV.columns, TextFormat("\t", header=False, quoting=False))
LINES = [f"{i % 2},app{i % 7},{i}" for i in range(500)]
TEXT = "\n".join(["click,app,price", *LINES]) + "\n"


@pytest.fixture
def bucket():
    """A URL of an empty folder in memory."""
    system, name = fsspec.filesystem("memory"), uuid.uuid4().hex
    system.mkdir(name)
    yield f"memory://{name}"
    system.rm(name, recursive=True)


def put(url, content):
    content = content.encode() if isinstance(content, str) else content
    system, name = fsspec.core.url_to_fs(url)
    system.pipe(name, content)
    return url


def put_folder(url, folder):
    for path in folder.iterdir():
        put(f"{url}/{path.name}", path.read_bytes())
    return url


def rows(path, schema=CSV, **options):
    return pa.concat_tables(read_tables(path, schema, **options)).to_pylist()


def failure(path, schema=CSV, **options):
    with pytest.raises(UserError) as raised:
        rows(path, schema, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def contents(name):
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        table = pa.table({"click": [0, 1] * 50, "app": ["a", "b"] * 50, "price": range(100)})
        pa_parquet.write_table(table, sink)
        return sink.getvalue().to_pybytes()
    text = TEXT.split("\n", 1)[1].replace(",", "\t") if ".tsv" in name else TEXT
    if name.endswith(".gz"):
        return gzip.compress(text.encode())
    if name.endswith(".zst"):
        return pa.compress(text.encode(), codec="zstd", asbytes=True)
    return text.encode()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.tsv.gz", "a.parquet"])
def test_a_file_behind_a_url_has_the_rows_of_one_on_the_disk(bucket, tmp_path, name):
    schema = TSV if ".tsv" in name else CSV
    (tmp_path / name).write_bytes(contents(name))
    expected = rows(tmp_path / name, schema)
    assert len(expected) == (100 if name == "a.parquet" else 500)
    assert rows(put(f"{bucket}/{name}", contents(name)), schema) == expected
    assert rows(f"file://{tmp_path}/{name}", schema) == expected


def test_a_pattern_of_a_url_names_its_files_in_the_order_of_their_names(bucket):
    header, *lines = TEXT.splitlines()
    for part in (2, 0, 1):
        put(f"{bucket}/logs/day-{part}.csv", "\n".join([header, *lines[part::3]]) + "\n")
    put(f"{bucket}/logs/day-x/other.csv", TEXT)
    files = find_files(f"{bucket}/logs/day-*.csv")
    assert [str(file) for file in files] == [f"{bucket}/logs/day-{part}.csv" for part in range(3)]
    prices = [row["price"] for row in rows(f"{bucket}/logs/day-*.csv")]
    assert prices == [float(i) for part in range(3) for i in range(part, 500, 3)]
    assert [file.name for file in source_path(f"{bucket}/logs").glob("day-[12].*")] == [
        "day-1.csv",
        "day-2.csv",
    ]


def test_a_path_with_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:").mkdir()
    (tmp_path / "gs:" / "a.csv").write_text(TEXT)
    assert len(rows("gs:/a.csv")) == 500


def test_a_link_to_nowhere_is_not_passed_over(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").mkdir()
    (tmp_path / "c.csv").symlink_to(tmp_path / "none.csv")
    assert find_files(tmp_path / "*.csv") == [tmp_path / "a.csv", tmp_path / "c.csv"]


def test_files_that_are_not_there_are_reported_by_their_url(bucket):
    put(f"{bucket}/logs/a.csv", TEXT)
    assert failure(f"{bucket}/b.csv") == f"{bucket}/b.csv: no such file"
    assert failure(f"{bucket}/*.tsv") == f"{bucket}/*.tsv: no file matches"
    assert failure(f"{bucket}/logs") == f"{bucket}/logs: a folder, not a file"
    assert failure("file:///none/a.csv") == "file:///none/a.csv: no such file"


def test_bad_content_is_reported_by_its_url(bucket):
    url = put(f"{bucket}/a.csv.gz", gzip.compress(TEXT.encode() * 200)[:-40])
    assert failure(url).startswith(f"{url}: cannot be read to its end (Truncated")
    url = put(f"{bucket}/b.csv", TEXT + "1,a,x\n")
    assert failure(url).startswith(f"{url}, line 502, column price: value 'x' is not a finite")
    url = put(f"{bucket}/c.parquet", b"PAR1 and no more")
    assert failure(url).startswith(f"{url}: ")
    assert failure(put(f"{bucket}/d.csv", "")) == f"{bucket}/d.csv: the file is empty"


def test_a_driver_that_is_missing_is_named(monkeypatch):
    about = {"class": "nodriver.NoFileSystem", "err": "nodriver is needed for nodriver://"}
    monkeypatch.setitem(known_implementations, "nodriver", about)
    message = failure("nodriver://bucket/a.csv")
    assert message == (
        "nodriver://bucket/a.csv: nodriver is needed for nodriver:// (pip install nodriver)"
    )
    assert "Protocol not known: none; use a path, gs://" in failure("none://bucket/a.csv")


class ConnectionLostError(Exception):
    """As the drivers have them: no OSError."""


class Unreliable(MemoryFileSystem):
    """Counts the bytes that are read, and may fail after some of them."""

    protocol = "unreliable"
    store, pseudo_dirs = {}, [""]
    read, fails_after, forbidden = 0, None, False

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("unreliable://"))

    def info(self, path, **options):
        if Unreliable.forbidden:
            raise ConnectionLostError("403: Forbidden")
        return super().info(path, **options)

    def open(self, path, mode="rb", **options):
        file = super().open(path, mode, **options)
        return Counted(file) if mode == "rb" else file


class Counted:
    def __init__(self, file):
        self._file = file

    def read(self, count=-1):
        content = self._file.read(count)
        Unreliable.read += len(content)
        if Unreliable.fails_after is not None and Unreliable.read > Unreliable.fails_after:
            raise ConnectionLostError("the peer\nis gone")
        return content

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.fixture
def unreliable(monkeypatch):
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    for name, value in (("read", 0), ("fails_after", None), ("forbidden", False)):
        monkeypatch.setattr(Unreliable, name, value)
    yield "unreliable://b"
    Unreliable.store.clear()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_failure_of_the_driver_is_one_line(unreliable, name, monkeypatch):
    url = put(f"{unreliable}/{name}", contents(name))
    assert rows(url)
    monkeypatch.setattr(Unreliable, "fails_after", 0)
    assert "ConnectionLostError: the peer is gone" in failure(url)
    monkeypatch.setattr(Unreliable, "forbidden", True)
    assert failure(url) == f"{url}: cannot be reached (ConnectionLostError: 403: Forbidden)"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_rows_come_before_the_whole_file_is_fetched(unreliable, suffix):
    rng = np.random.default_rng(0)
    numbers = rng.random(200_000)
    text = "click,app,price\n" + "".join(f"1,a,{number}\n" for number in numbers)
    content = gzip.compress(text.encode(), 1) if suffix else text.encode()
    url = put(f"{unreliable}/a.csv{suffix}", content)
    tables = read_tables(url, CSV, block_bytes=1 << 14)
    assert next(tables).num_rows > 0
    first = Unreliable.read
    assert 0 < first < len(content)
    assert 1 + sum(1 for _ in tables) > 100


def test_a_data_set_is_prepared_from_a_folder_behind_a_url(bucket, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    click_logs.write_frappe(source, click_logs.SMALL)
    (source / "train.csv.gz").write_bytes(gzip.compress((source / "train.csv").read_bytes()))
    (source / "train.csv").unlink()
    put_folder(f"{bucket}/frappe", source)
    out, local = tmp_path / "out", tmp_path / "local"
    summaries = prepare("frappe", out, source=f"{bucket}/frappe/")
    assert summaries == prepare("frappe", local, source=source)
    noted = json.loads((dataset_folder("frappe", out) / "source.json").read_text())
    assert noted == {"source": f"{bucket}/frappe/"}
    assert prepare("frappe", out, source=f"{bucket}/frappe/") == summaries
    with pytest.raises(UserError, match="was prepared with source=memory://"):
        prepare("frappe", out, source=source)
    with pytest.raises(UserError, match=f"--source={bucket}/none: no such folder"):
        prepare("frappe", tmp_path / "none", source=f"{bucket}/none")
    with pytest.raises(UserError, match=f"{bucket}: prepared data sets are kept on disk"):
        prepare("frappe", bucket, source=source)
    with pytest.raises(UserError, match=f"{bucket}: no file for split 'train'"):
        prepare("frappe", tmp_path / "none", source=bucket)


def test_an_unknown_table_behind_a_url_is_prepared(bucket, tmp_path):
    url = put(f"{bucket}/clicks.csv", TEXT)
    inference = infer_schema(url)
    assert [column.name for column in inference.schema.columns] == ["click", "app", "price"]
    options = BuildOptions(schema=inference.schema.to_dict())
    whole = prepare("tabular", tmp_path / "one", source=url, options=options)
    assert sum(summary.rows for summary in whole.values()) == 500
    header, *lines = TEXT.splitlines()
    for part in range(3):
        put(f"{bucket}/days/train-{part}.csv", "\n".join([header, *lines[part::3]]) + "\n")
    for split in ("valid", "test"):
        put(f"{bucket}/days/{split}.csv", TEXT)
    several = prepare("tabular", tmp_path / "two", source=f"{bucket}/days", options=options)
    assert [summary.rows for summary in several.values()] == [500, 500, 500]
