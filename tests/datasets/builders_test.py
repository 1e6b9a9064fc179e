"""Each builder on small files in its layout, and on the real samples if available."""

import dataclasses
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from deepfm_jax import (
    Categorical,
    Label,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    UserError,
)
from deepfm_jax.datasets import Avazu, CensusIncome, Criteo1TB
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.schema.schema_files import read_schema, write_schema
from tests import click_logs

SPLITS = ("train", "valid", "test")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def rows_of(name, out, split, labels=()):
    """The encoded examples of a split, in file order."""
    data = PreparedData(name, out, labels)
    (batch,) = data.batches(split, data.rows(split))
    return batch


def everything(name, out):
    """Rows of each split, and the positive rate over all splits and in train."""
    data = PreparedData(name, out)
    rows = [data.rows(split) for split in SPLITS]
    positives = [data.summaries[split].positives for split in SPLITS]
    return rows, sum(positives) / sum(rows), positives[0] / rows[0]


# The numbers are from the description of the samples, to its digits. For Frappe, whose valid and
# test are given, it states the positive rate of train.
@pytest.mark.parametrize(
    ("name", "rows", "rate"),
    [
        ("criteo", [95_997, 13_714, 13_714], 0.257),
        ("avazu", 20_000, 0.168),
        ("frappe", [202_027, 57_722, 28_860], 0.335),
        ("census_income", 99_762, 0.062),
    ],
)
def test_the_real_samples_are_read_completely(data_folder, out, name, rows, rate):
    if not (data_folder / name).is_dir():
        pytest.skip(f"{data_folder} holds no {name}")
    prepare(name, out, source=data_folder / name)
    found, rate_of_all, rate_of_train = everything(name, out)
    if isinstance(rows, int):
        assert sum(found) == rows
        np.testing.assert_allclose(found, [0.8 * rows, 0.1 * rows, 0.1 * rows], rtol=0.04)
    else:
        assert found == rows
    assert round(rate_of_train if name == "frappe" else rate_of_all, 3) == rate
    if name == "census_income":
        summaries = PreparedData(name, out).summaries.values()
        single = sum(summary.positives_of["marital_status"] for summary in summaries)
        assert round(single / rows, 3) == 0.432


def test_avazu_of_one_file_has_hours_and_weekdays(source, out):
    click_logs.write_avazu(source / "train.csv.gz", 600)
    prepare("avazu", out, source=source)
    encoder = Encoder.load(dataset_folder("avazu", out))
    names = [field.name for field in encoder.schema.fields]
    assert names[:3] == ["hour_hour", "hour_weekday", "C1"]
    assert len(names) == 23
    hours, weekdays = (encoder.coders[slot].vocabulary.to_pylist() for slot in (0, 1))
    assert sorted(hours) == list(range(24))
    # 21 to 30 October 2014: Tuesday to Thursday of the week after.
    assert sorted(weekdays) == list(range(7))
    assert sum(everything("avazu", out)[0]) == 600


def test_avazu_can_be_split_by_time(source, out):
    click_logs.write_avazu(source / "train.csv.gz", 600)
    prepare("avazu", out, source=source, options=BuildOptions(time_column="hour"))
    data = PreparedData("avazu", out)
    schema = dataclasses.replace(Avazu.SCHEMA)
    (table,) = read_tables(source / "train.csv.gz", schema)
    times = table["hour"].to_numpy()
    ends = 0
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        rows = data.rows(split)
        assert abs(rows / 600 - share) < 0.03
        span = np.sort(times)[ends : ends + rows]
        inside = (span[0] <= times) & (times <= span[-1])
        assert inside.sum() == rows  # Rows with the same time stay together.
        expected = data.encoder.encode(table.filter(pa.array(inside)))
        np.testing.assert_array_equal(rows_of("avazu", out, split)["ids"], expected.ids)
        ends += rows


def test_avazu_of_three_files_keeps_its_splits(source, out):
    for split, rows in zip(SPLITS, (200, 50, 60), strict=True):
        click_logs.write_avazu(source / f"{split}.csv", rows)
    prepare("avazu", out, source=source)
    assert everything("avazu", out)[0] == [200, 50, 60]
    with pytest.raises(UserError, match="the rows are already split"):
        prepare("avazu", out.with_name("other"), source=source,
                options=BuildOptions(time_column="hour"))  # fmt: skip


def test_an_hour_out_of_range_is_named(source, out):
    click_logs.write_avazu(source / "train.csv", 50)
    text = (source / "train.csv").read_text().splitlines()
    cells = text[7].split(",")
    cells[2] = "14103124"
    text[7] = ",".join(cells)
    (source / "train.csv").write_text("\n".join(text) + "\n")
    with pytest.raises(UserError, match="line 8, column hour: value '14103124' is not a time"):
        prepare("avazu", out, source=source)


def test_census_income_of_both_files(source, out):
    click_logs.write_census(source / "census-income.data", 400)
    click_logs.write_census(source / "census-income.test.gz", 200, seed=1)
    prepare("census_income", out, source=source)
    data = PreparedData("census_income", out)
    rows, *_ = everything("census_income", out)
    assert rows[0] == 400
    assert rows[1] + rows[2] == 200
    assert 70 < rows[1] < 130
    assert len(data.encoder.schema.fields) == 39
    (table,) = read_tables(source / "census-income.data", data.encoder.schema)
    assert table["class_of_worker"].null_count > 0
    assert "Private" in table["class_of_worker"].to_pylist()
    for label in ("income", "marital_status"):
        batch = rows_of("census_income", out, "train", (label,))
        np.testing.assert_array_equal(batch["labels"][:, 0], table[label].to_numpy())
    both = rows_of("census_income", out, "train", ("income", "marital_status"))
    assert both["labels"].shape == (400, 2)
    first = rows_of("census_income", out, "train")
    np.testing.assert_array_equal(first["labels"][:, 0], table["income"].to_numpy())


def test_census_income_of_one_file_is_split(source, out):
    click_logs.write_census(source / "census-income.test", 500)
    prepare("census_income", out, source=source)
    rows, *_ = everything("census_income", out)
    assert sum(rows) == 500
    assert rows[0] > 350
    (source / "census-income.test").unlink()
    with pytest.raises(
        UserError, match=r"neither census-income\.data nor census-income\.test exists"
    ):
        prepare("census_income", out.with_name("other"), source=source)


def test_census_income_declares_every_column_of_the_file():
    assert len(CensusIncome.SCHEMA.columns) == 42


def test_the_terabyte_of_criteo_is_split_by_days(source, out):
    click_logs.write_criteo_days(source, 30, last=201)
    options = BuildOptions(hash_buckets=100)
    prepare("criteo_1tb", out, source=source, options=options)
    data = PreparedData("criteo_1tb", out)
    # The first half has one row more, like 89,137,319 of 178,274,637.
    assert [data.rows(split) for split in SPLITS] == [23 * 30, 101, 100]
    # The first integer is the day: floor(ln(d)^2) of the days up to 22.
    assert sorted(data.encoder.coders[0].vocabulary.to_pylist()) == list(range(10))
    (whole,) = read_tables((source / "day_23.gz",), data.encoder.schema)
    ids = data.encoder.encode(whole).ids
    np.testing.assert_array_equal(rows_of("criteo_1tb", out, "valid")["ids"], ids[:101])
    np.testing.assert_array_equal(rows_of("criteo_1tb", out, "test")["ids"], ids[101:])
    # In numeric order of the days: day 10 follows day 9.
    (tenth,) = read_tables((source / "day_10",), data.encoder.schema)
    train = rows_of("criteo_1tb", out, "train")["ids"]
    np.testing.assert_array_equal(train[300:330], data.encoder.encode(tenth).ids)


def test_the_terabyte_of_criteo_hashes_its_largest_columns():
    fields = {field.name: field for field in Criteo1TB.SCHEMA.fields}
    assert len(fields) == 39
    assert sum(getattr(field, "hash_buckets", None) or 0 for field in fields.values()) == 206e6
    assert fields["C2"] == Categorical("C2", min_count=3)


def test_a_missing_day_is_named(source, out):
    click_logs.write_criteo_days(source, 3, last=10)
    (source / "day_5.gz").unlink()
    with pytest.raises(UserError, match="day_5 is missing; criteo_1tb needs day_0 to day_23"):
        prepare("criteo_1tb", out, source=source)
    options = BuildOptions(time_column="I1")
    with pytest.raises(UserError, match="day_23 is held out; omit time_column"):
        prepare("criteo_1tb", out, source=source, options=options)


SCHEMA = Schema(
    (
        Label("bought", values=("no", "yes")),
        Categorical("shop", min_count=2),
        Numeric("price", transform="standardise"),
        Timestamp("at"),
    ),
    TextFormat(";", missing=("NA",)),
)
OPTIONS = BuildOptions(schema=SCHEMA.to_dict())


def shop_table(rows, seed=0):
    rng = np.random.default_rng(seed)
    price = rng.lognormal(2, 1, rows).round(2)
    minutes = rng.permutation(rows) * 17
    at = np.datetime64("2024-02-27T00:00:00") + minutes.astype("timedelta64[m]")
    bought = np.where(rng.random(rows) < 1 / price, "yes", "no")
    shops = [f"s{i}" for i in rng.integers(0, 9, rows)]
    return {"bought": bought.tolist(), "shop": shops, "price": price.tolist(),
            "at": [str(time).replace("T", " ") for time in at]}  # fmt: skip


def write_shop(path, rows, seed=0):
    table = shop_table(rows, seed)
    if path.suffix == ".parquet":
        pa_parquet.write_table(pa.table(table), path)
        return
    lines = [
        ";".join(table),
        *(";".join(map(str, row)) for row in zip(*table.values(), strict=True)),
    ]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_a_table_of_one_file_is_split_by_a_reproducible_draw(source, out):
    write_shop(source / "shop.csv.gz", 500)
    first = prepare("tabular", out, source=source / "shop.csv.gz", options=OPTIONS)
    assert sum(summary.rows for summary in first.values()) == 500
    again = prepare("tabular", out.with_name("b"), source=source / "shop.csv.gz", options=OPTIONS)
    assert again == first
    encoder = Encoder.load(dataset_folder("tabular", out))
    assert encoder.schema == SCHEMA


def test_a_table_can_be_split_by_time(source, out):
    write_shop(source / "shop.csv", 500)
    options = dataclasses.replace(OPTIONS, time_column="at")
    summaries = prepare("tabular", out, source=source / "shop.csv", options=options)
    assert [summaries[split].rows for split in SPLITS] == [400, 50, 50]
    latest = max(shop_table(500)["at"])
    (table,) = read_tables(source / "shop.csv", SCHEMA)
    last = table.take(np.argsort(table["at"].to_numpy(), kind="stable")[-50:])
    assert latest.startswith(str(np.datetime64(int(last["at"][-1].as_py()), "s"))[:10])
    ids = Encoder.load(dataset_folder("tabular", out)).encode(last).ids
    found = rows_of("tabular", out, "test")["ids"]
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(ids, axis=0))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("shop", "'shop' does not hold times or numbers; columns that do: price, at"),
        ("when", "'when' does not hold times or numbers"),
    ],
)
def test_a_column_without_times_cannot_split(source, out, column, message):
    write_shop(source / "shop.csv", 50)
    options = dataclasses.replace(OPTIONS, time_column=column)
    with pytest.raises(UserError, match=message):
        prepare("tabular", out, source=source / "shop.csv", options=options)


def test_times_that_are_missing_or_too_few_cannot_split(source, out):
    path = source / "shop.csv"
    write_shop(path, 50)
    options = dataclasses.replace(OPTIONS, time_column="at")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5].rsplit(";", 1)[0] + ";NA", *lines[6:]]) + "\n")
    with pytest.raises(UserError, match=r"'at': rows without a time \(1\) belong to no split"):
        prepare("tabular", out, source=path, options=options)
    same = [line.rsplit(";", 1)[0] + ";2024-02-29" for line in lines[1:]]
    path.write_text("\n".join([lines[0], *same]) + "\n")
    with pytest.raises(UserError, match=r"too few distinct times \(1\).*'valid' would be empty"):
        prepare("tabular", out, source=path, options=options)


def test_a_folder_of_three_splits_in_several_files(source, out):
    for part in range(3):
        write_shop(source / f"train-{part}.parquet", 100, seed=part)
    write_shop(source / "valid.csv", 60, seed=7)
    write_shop(source / "test.tsv", 70, seed=8)
    summaries = prepare("tabular", out, source=source, options=OPTIONS)
    assert [summaries[split].rows for split in SPLITS] == [300, 60, 70]


def test_a_pattern_of_files_is_one_table(source, out):
    for part in range(3):
        write_shop(source / f"day-{part}.csv", 100, seed=part)
    summaries = prepare("tabular", out, source=source / "day-*.csv", options=OPTIONS)
    assert sum(summary.read for summary in summaries.values()) == 300


def test_what_a_table_lacks_is_reported(source, out):
    write_shop(source / "shop.csv", 50)
    for where, message in (
        (source, r"no file for split 'train'; looked for train\.csv, train-\*\.csv and the like"),
        (source / "none.csv", "none.csv: no such file"),
        (source / "*.parquet", "no file matches"),
    ):
        with pytest.raises(UserError, match=message):
            prepare("tabular", out, source=where, options=OPTIONS)
    with pytest.raises(UserError, match="needs a schema of its columns: --schema=FILE"):
        prepare("tabular", out, source=source / "shop.csv")
    with pytest.raises(UserError, match="'frappe' has its own schema"):
        prepare("frappe", out, source=source, options=OPTIONS)
    (source / "shop.csv").rename(source / "train.csv")
    write_shop(source / "test.csv", 50)
    with pytest.raises(UserError, match="none for 'valid', which early stopping needs; add them"):
        prepare("tabular", out, source=source, options=OPTIONS)


def test_another_schema_or_source_is_another_data_set(source, out):
    for name in ("a.csv", "b.csv"):
        write_shop(source / name, 300)
    prepare("tabular", out, source=source / "a.csv", options=OPTIONS)
    same = BuildOptions(schema=json.loads(json.dumps(OPTIONS.schema)))
    assert same == OPTIONS
    prepare("tabular", out, source=source / "a.csv", options=same)
    with pytest.raises(UserError, match=r"prepared with source=.*a\.csv, not source=.*b\.csv"):
        prepare("tabular", out, source=source / "b.csv", options=OPTIONS)
    other = dataclasses.replace(SCHEMA, columns=SCHEMA.columns[:-1])
    with pytest.raises(UserError, match="was prepared with another schema; choose"):
        prepare("tabular", out, source=source / "a.csv",
                options=BuildOptions(schema=other.to_dict()))  # fmt: skip


def test_a_written_schema_has_one_line_per_column_and_is_read_back(tmp_path):
    path = tmp_path / "schema.json"
    for schema in (SCHEMA, Avazu.SCHEMA, CensusIncome.SCHEMA):
        write_schema(path, schema)
        assert read_schema(path) == schema
        lines = path.read_text().splitlines()
        assert len(lines) == len(schema.columns) + 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"columns": [\n  {"kind": "label" "name"}]}', "line 2, column 20: not valid JSON"),
        ('{"columns": [{"kind": "label", "name": "y", "value": 1}]}',
         "column 'y' has no option 'value'; did you mean 'values'"),
        ('{"columns": []}', "declares no categorical, numeric or time column"),
        ("[]", "a schema is an object"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_schema_file_is_named(tmp_path, text, message):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_schema(path)
    assert str(path) in str(raised.value)
    with pytest.raises(UserError, match=r"none.json: cannot be read \(No such file"):
        read_schema(tmp_path / "none.json")
