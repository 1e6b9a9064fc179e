"""Beam's DirectRunner and the local path write the same files and raise the same errors."""

import dataclasses
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.core import shuffle

from deepfm_jax import Categorical, Label, Numeric, Schema, Timestamp, UserError
from deepfm_jax.datasets import block_files
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.blocks import BLOCK_ROWS
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.input.pipeline import PreparedData
from tests import click_logs
from tests.both_ways import ENGINE, prepare_twice, same_error, same_records, write_parts

pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install '.[beam]'")

from deepfm_jax.datasets.beam import blocks as beam_blocks

# Beam's own code raises deprecation warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def write_criteo(folder, sizes=(5000, 37, 8200), held_out=(90, 60)):
    lines = click_logs.criteo_lines(sum(sizes))
    write_parts(folder, "train", lines, sizes)
    for seed, split in enumerate(("valid", "test"), start=1):
        lines = click_logs.criteo_lines(sum(held_out), seed)
        write_parts(folder, split, lines, held_out, ".tsv")


def spoil(path, number):
    """Makes the label of a line invalid."""
    packed = path.suffix == ".gz"
    data = path.read_bytes()
    lines = (gzip.decompress(data) if packed else data).decode().splitlines()
    lines[number - 1] = "7" + lines[number - 1][1:]
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if packed else text)


def test_several_files_of_odd_sizes(tmp_path, source):
    write_criteo(source)
    summaries = prepare_twice("criteo", tmp_path, source)
    # Blocks span the borders of files, and the last one is not full.
    assert summaries["train"].rows == 13_237 > 3 * BLOCK_ROWS


def test_rows_of_one_source_are_drawn(tmp_path, source):
    write_parts(source, "train", click_logs.criteo_lines(9000), (4500, 100, 4400))
    summaries = prepare_twice("criteo", tmp_path, source)
    assert sum(summary.rows for summary in summaries.values()) == 9000
    assert summaries["test"].rows > 800


def test_crosses_and_value_fields(tmp_path, source):
    write_criteo(source, (300, 41, 500))
    options = BuildOptions(numeric="standardise", crosses=(("C1", "C2"), ("C3", "C4", "C5")))
    prepare_twice("criteo", tmp_path, source, options)


@pytest.mark.parametrize("numeric", ["quantile", "log"])
def test_numbers(tmp_path, source, numeric):
    write_criteo(source, (300, 41, 500))
    options = BuildOptions(numeric=numeric, buckets=7, separate_missing=True, max_size=5)
    prepare_twice("criteo", tmp_path, source, options)


def test_hashed_values(tmp_path, source):
    write_criteo(source, (300, 41, 500))
    prepare_twice("criteo", tmp_path, source, BuildOptions(hash_buckets=50))


SCHEMA = Schema(
    (
        Label("bought"),
        Categorical("shop", min_count=2),
        Categorical("product", dtype="integer", max_size=30),
        Numeric("price", transform="standardise"),
        Timestamp("at", parts=("hour", "weekday")),
    )
)


def shop_table(rows, seed):
    rng = np.random.default_rng(seed)
    # With 0 and -0, which are equal but not identical.
    price = rng.choice([0.0, -0.0, 1.5, 3.25, 1e9], rows)
    seconds = 1_700_000_000 + rng.integers(0, 10**6, rows)
    shops = [f"s{i}" if i else None for i in rng.integers(0, 9, rows)]
    return pa.table(
        {
            "bought": rng.integers(0, 2, rows),
            "shop": shops,
            "product": rng.integers(0, 50, rows),
            "price": price,
            "at": pa.array(seconds, pa.timestamp("s")),
        }
    )


@pytest.mark.parametrize("time_column", [None, "at"])
def test_a_table_in_parquet(tmp_path, source, time_column):
    for part, rows in enumerate((700, 3, 900)):
        pa_parquet.write_table(shop_table(rows, part), source / f"day-{part}.parquet")
    options = BuildOptions(schema=SCHEMA.to_dict(), time_column=time_column)
    summaries = prepare_twice("tabular", tmp_path, source / "day-*.parquet", options)
    assert sum(summary.rows for summary in summaries.values()) == 1603


def test_census_income_is_halved(tmp_path, source):
    click_logs.write_census(source / "census-income.data", 400)
    click_logs.write_census(source / "census-income.test.gz", 200, seed=1)
    prepare_twice("census_income", tmp_path, source)


def test_counts_that_do_not_fit_are_passed_on_in_parts(tmp_path, source, monkeypatch):
    from deepfm_jax.datasets.beam import passes as beam_passes
    from deepfm_jax.datasets.beam import survey as beam_survey
    from deepfm_jax.readers import sources

    handed_on, parted = [], beam_survey.Survey._parted

    def spy(self, counter):
        handed_on.append({part for (_, part), _ in parted(self, counter)})
        return parted(self, counter)

    monkeypatch.setattr(beam_survey.Survey, "_parted", spy)
    monkeypatch.setattr(beam_survey, "_HELD_VALUES", 1000)
    monkeypatch.setattr(beam_passes, "_BYTES_OF_PART", 20_000)
    monkeypatch.setattr(sources, "_BLOCK_BYTES", 1 << 14)
    write_criteo(source, (90, 21, 150))
    prepare_twice("criteo", tmp_path, source)
    prepare_twice("criteo", tmp_path / "b", source, BuildOptions(numeric="quantile", buckets=9))
    # Several times per file, with a column's values in several parts.
    filled = [parts for parts in handed_on if parts]
    assert len(filled) > 2 * 3
    assert max(map(len, filled)) > 1


def test_several_record_files_are_filled_alike(tmp_path, source, monkeypatch):
    for module in (block_files, beam_blocks):
        monkeypatch.setattr(module, "FILE_BLOCKS", 2)
    write_criteo(source, (12_300, 37, 4200))
    prepare_twice("criteo", tmp_path, source)
    names = [path.name for path in (tmp_path / "beam").rglob("*train*array_record*")]
    assert len(names) == 3  # of 5 blocks


@given(blocks=st.integers(1, 20 * block_files.FILE_BLOCKS))
def test_keys_fall_into_the_file_that_the_local_writer_would_choose(blocks):
    keys = beam_blocks.ShardKeys(blocks)
    of_block = [keys.key(number) for number in range(blocks)]
    assert of_block == sorted(set(of_block))
    files = beam_blocks.SameShards().get_number_shards(1 << 30, blocks)
    found = [shuffle.get_bucket_number(key, files, of_block[-1]) for key in of_block]
    np.testing.assert_array_equal(found, np.arange(blocks) // block_files.FILE_BLOCKS)


def test_bad_rows_within_the_limit(tmp_path, source):
    write_criteo(source, (300, 41, 500))
    for name, number in (("train-0.tsv.gz", 3), ("train-0.tsv.gz", 300), ("train-2.tsv.gz", 8)):
        spoil(source / name, number)
    lines = (source / "valid-1.tsv").read_text().splitlines()
    (source / "valid-1.tsv").write_text("\n".join([*lines[:7], "1\t2", *lines[7:]]) + "\n")
    summaries = prepare_twice("criteo", tmp_path, source, BuildOptions(max_bad_rows=3))
    assert [summary.rejected for summary in summaries.values()] == [3, 1, 0]
    text = (dataset_folder("criteo", tmp_path / "beam") / "rejects.tsv").read_text()
    assert len(text.splitlines()) == 5


def test_bad_rows_of_a_source_that_is_drawn_from(tmp_path, source):
    write_parts(source, "train", click_logs.criteo_lines(2000), (900, 100, 1000))
    for name, number in (("train-0.tsv.gz", 3), ("train-2.tsv.gz", 8)):
        spoil(source / name, number)
    summaries = prepare_twice("criteo", tmp_path, source, BuildOptions(max_bad_rows=2))
    assert [summary.rejected for summary in summaries.values()] == [2, 0, 0]


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_bad_rows_beyond_the_limit(tmp_path, source, limit):
    write_criteo(source, (300, 41, 500))
    for name, number in (("train-0.tsv.gz", 5), ("train-1.tsv.gz", 7), ("train-2.tsv.gz", 2),
                         ("train-2.tsv.gz", 4), ("train-2.tsv.gz", 6)):  # fmt: skip
        spoil(source / name, number)
    message = same_error("criteo", tmp_path, source, BuildOptions(max_bad_rows=limit))
    where = ("train-0.tsv.gz, line 5", "train-1.tsv.gz, line 7", "train-2.tsv.gz, line 2",
             "train-2.tsv.gz, line 4")[limit]  # fmt: skip
    assert f"{source / where}, column label: value '7' is not a label" in message


@pytest.mark.parametrize("name", ["train-1.tsv.gz", "train-2.tsv.gz"])
def test_a_truncated_file(tmp_path, source, name):
    write_criteo(source, (300, 2000, 500))
    data = (source / name).read_bytes()
    (source / name).write_bytes(data[: len(data) // 2])
    assert f"{source / name}" in same_error("criteo", tmp_path, source)


def test_of_two_mistakes_the_first_in_file_order_is_raised(tmp_path, source):
    write_criteo(source, (300, 2000, 500))
    data = (source / "train-1.tsv.gz").read_bytes()
    (source / "train-1.tsv.gz").write_bytes(data[: len(data) // 2])
    spoil(source / "train-2.tsv.gz", 1)
    spoil(source / "valid-0.tsv", 1)
    assert "train-1.tsv.gz" in same_error("criteo", tmp_path, source)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_of_one_class(tmp_path, source, split):
    click_logs.write_criteo(source, click_logs.SMALL)
    path = source / f"{split}.tsv"
    path.write_text("".join("0" + line[1:] + "\n" for line in path.read_text().splitlines()))
    assert f"split '{split}': all" in same_error("criteo", tmp_path, source)


def test_a_drawn_split_of_one_class(tmp_path, source):
    lines = ["0" + line[1:] for line in click_logs.criteo_lines(300)]
    write_parts(source, "train", lines, (100, 200))
    assert "split 'train': all" in same_error("criteo", tmp_path, source)


def test_files_without_good_rows(tmp_path, source):
    click_logs.write_criteo(source, {"train": 2, "valid": 30, "test": 30})
    for line in (1, 2):
        spoil(source / "train.tsv", line)
    message = same_error("criteo", tmp_path, source, BuildOptions(max_bad_rows=2))
    assert "the training split has no rows" in message


def test_parquet_without_rows(tmp_path, source):
    options = BuildOptions(schema=SCHEMA.to_dict())
    for split in ("train", "valid", "test"):
        pa_parquet.write_table(shop_table(0, 0), source / f"{split}.parquet")
    assert "holds no rows" in same_error("tabular", tmp_path, source, options)


def test_files_that_differ(tmp_path, source):
    options = BuildOptions(schema=SCHEMA.to_dict())
    for part in (0, 1):
        table = shop_table(30, part)
        if part:
            table = table.set_column(2, "product", table["product"].cast(pa.string()))
        pa_parquet.write_table(table, source / f"day-{part}.parquet")
    pattern = source / "day-*.parquet"
    assert "column product is integer" in same_error("tabular", tmp_path, pattern, options)


def test_times_that_cannot_split(tmp_path, source):
    options = BuildOptions(schema=SCHEMA.to_dict(), time_column="at")
    table = shop_table(50, 0)
    path = source / "shop.parquet"
    same = pa.array([1_700_000_000] * 50, pa.timestamp("s"))
    pa_parquet.write_table(table.set_column(4, "at", same), path)
    assert "too few distinct times (1)" in same_error("tabular", tmp_path, path, options)
    times = pa.array([None, *range(49)], pa.timestamp("s"))
    pa_parquet.write_table(table.set_column(4, "at", times), path)
    assert "rows without a time (1) belong to no split" in same_error(
        "tabular", tmp_path, path, options
    )


def test_the_terabyte_in_its_day_files(tmp_path, source):
    click_logs.write_criteo_days(source, 40, last=301)
    summaries = prepare_twice("criteo_1tb", tmp_path, source, BuildOptions(hash_buckets=100))
    assert [summary.rows for summary in summaries.values()] == [23 * 40, 151, 150]


def test_simulated_rows_have_no_files(tmp_path):
    with pytest.raises(UserError, match="is not read from files that Beam workers could share"):
        prepare("synthetic", tmp_path, options=BuildOptions(rows=300), beam=ENGINE)


def test_a_data_set_prepared_by_beam_is_recognized_locally(tmp_path, source):
    click_logs.write_criteo(source, click_logs.SMALL)
    summaries = prepare("criteo", tmp_path, source=source, beam=ENGINE)
    assert prepare("criteo", tmp_path, source=source) == summaries
    options = BuildOptions(min_count=3)
    with pytest.raises(UserError, match="prepared with min_count=None"):
        prepare("criteo", tmp_path, source=source, options=options, beam=ENGINE)
    prepare("criteo", tmp_path, source=source, options=options, overwrite=True, beam=ENGINE)
    written = (dataset_folder("criteo", tmp_path) / "options.json").read_text()
    assert BuildOptions(**json.loads(written)) == options


def test_workers_in_separate_processes(tmp_path, source):
    write_criteo(source, (300, 41, 500))
    options = ("direct_running_mode=multi_processing", "direct_num_workers=2")
    engine = dataclasses.replace(ENGINE, options=options)
    local = prepare("criteo", tmp_path / "local", source=source)
    assert prepare("criteo", tmp_path / "beam", source=source, beam=engine) == local
    same_records("criteo", tmp_path)


def test_the_launcher_accepts_a_runner_and_its_options(tmp_path, source):
    click_logs.write_criteo(source, click_logs.SMALL)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.prepare", "--dataset=criteo", f"--source={source}",
         f"--out={tmp_path / 'beam'}", "--beam_runner=DirectRunner",
         "--beam_options=direct_num_workers=1,job_name=prepare"],
        cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "39 fields" in done.stdout
    local = prepare("criteo", tmp_path / "local", source=source)
    same_records("criteo", tmp_path)
    assert PreparedData("criteo", tmp_path / "beam").summaries == local


def test_a_runner_that_does_not_exist(tmp_path, source):
    click_logs.write_criteo(source, click_logs.SMALL)
    with pytest.raises(UserError, match="--beam_runner=Flunk: Unexpected pipeline runner"):
        prepare("criteo", tmp_path, source=source, beam=BeamEngine("Flunk"))
