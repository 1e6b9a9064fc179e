import json
import os
import pathlib

import jax
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
)
from deepfm_jax.data.builders.options import BuildOptions
from deepfm_jax.data.encoder import Encoder
from deepfm_jax.data.pipeline import PreparedData
from deepfm_jax.data.prepare import dataset_folder, describe, prepare
from deepfm_jax.data.sources import read_tables
from deepfm_jax.files import only_writer
from deepfm_jax.schema import Cross
from deepfm_jax.training.settings import Experiment, from_mapping
from tests import click_logs

SMALL = {"train": 60, "valid": 30, "test": 30}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    click_logs.write_frappe(folder, SMALL)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def nothing_left(out):
    """No data set, whole or half-written."""
    return not [path for path in out.rglob("*") if path.is_file()]


def test_counts_are_those_of_the_files(prepared, frappe_files):
    summaries = prepare("frappe", prepared, source=frappe_files)
    assert {split: s.rows for split, s in summaries.items()} == click_logs.ROWS
    for split, summary in summaries.items():
        lines = (frappe_files / f"{split}.csv").read_text().splitlines()[1:]
        assert summary.read == len(lines)
        assert summary.positives == sum(line[0] == "1" for line in lines)
        assert summary.rejected == 0


def test_description_tells_rows_and_vocabularies(prepared, frappe_files):
    summaries = prepare("frappe", prepared, source=frappe_files)
    text = describe(summaries, Encoder.load(dataset_folder("frappe", prepared)))
    assert "10,000" in text
    assert "user 21" in text
    assert "10 fields, 210 table rows in all" in text


def test_vocabularies_see_the_training_split_only(source, out):
    text = (source / "valid.csv").read_text().splitlines()
    text[1] = "1," + ",".join(["999"] * 10)
    (source / "valid.csv").write_text("\n".join(text) + "\n")
    prepare("frappe", out, source=source)
    encoder = Encoder.load(dataset_folder("frappe", out))
    assert all(999 not in coder.vocabulary.to_pylist() for coder in encoder.coders)
    first = next(iter(PreparedData("frappe", out).batches("valid", 8)))
    assert first["ids"][0].tolist() == [0] * 10
    assert (first["ids"][1:] > 0).any()


def test_a_prepared_set_is_reused_and_other_options_are_refused(source, out):
    prepare("frappe", out, source=source)
    folder = dataset_folder("frappe", out)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    prepare("frappe", out, source=source)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(UserError, match="prepared with min_count=None, not min_count=3"):
        prepare("frappe", out, source=source, options=BuildOptions(min_count=3))


def test_overwrite_replaces_it(source, out):
    prepare("frappe", out, source=source)
    options = BuildOptions(min_count=30)
    summaries = prepare("frappe", out, source=source, options=options, overwrite=True)
    assert summaries["train"].rows == 60
    encoder = Encoder.load(dataset_folder("frappe", out))
    assert encoder.field_dims == (1,) * 10
    click_logs.write_frappe(source, SMALL, seed=5)
    changed = prepare("frappe", out, source=source, options=options, overwrite=True)
    assert changed["train"].fingerprint != summaries["train"].fingerprint
    rows = sum(int(b["mask"].sum()) for b in PreparedData("frappe", out).batches("train", 8))
    assert rows == 60


def test_nothing_but_the_data_set_is_left_in_its_folder(source, out):
    (source / "train.csv").rename(source / "kept.csv")
    with pytest.raises(UserError, match="no file for split 'train'"):
        prepare("frappe", out, source=source)
    assert not out.exists()
    (source / "kept.csv").rename(source / "train.csv")
    prepare("frappe", out, source=source)
    assert [path.name for path in out.iterdir()] == ["frappe"]
    assert list((out / "frappe").iterdir()) == [dataset_folder("frappe", out)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_killed_process_left_is_cleared_up_by_the_next(source, out, overwrite):
    if overwrite:
        prepare("frappe", out, source=source)
    left = [out / "frappe" / "incomplete.ABC_1.0.0", out / ".frappe.abc", out / ".criteo.abc"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "frappe-train.array_record-00000-of-00001").touch()
    prepare("frappe", out, source=source, overwrite=overwrite)
    assert [folder.exists() for folder in left] == [False, False, True]
    assert PreparedData("frappe", out).rows("train") == SMALL["train"]


def test_two_do_not_prepare_one_data_set_at_once(source, out):
    with (
        only_writer(out / "frappe"),
        pytest.raises(UserError, match="frappe: another process is writing there; wait"),
    ):
        prepare("frappe", out, source=source)
    prepare("frappe", out, source=source)


def test_a_data_set_is_not_lost_between_the_old_and_the_new(source, out, monkeypatch):
    before = prepare("frappe", out, source=source)
    folder, replace = out / "frappe" / "1.0.0", os.replace

    def stopped(old, new):
        if pathlib.Path(new) == folder and "replaced" not in str(old):
            raise SystemExit
        replace(old, new)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(SystemExit):
        prepare("frappe", out, source=source, overwrite=True)
    assert prepare("frappe", out, source=source) == before
    # What a process that was killed there leaves.
    (out / ".frappe.abc").mkdir()
    folder.rename(out / ".frappe.abc" / "replaced")
    monkeypatch.undo()
    assert prepare("frappe", out, source=source) == before
    assert not (out / ".frappe.abc").exists()


def test_a_failed_overwrite_keeps_what_was_there(source, out):
    prepare("frappe", out, source=source)
    fingerprint = PreparedData("frappe", out).fingerprint
    (source / "valid.csv").write_text("label\n1\n")
    with pytest.raises(UserError, match="column 'user' is missing"):
        prepare("frappe", out, source=source, overwrite=True)
    assert PreparedData("frappe", out).fingerprint == fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_row_stops_it_and_leaves_nothing(source, out, split):
    path = source / f"{split}.csv"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace(",", ",x", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"{split}.csv, line 5, column user: value 'x\d+' is not"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)
    summaries = prepare("frappe", out, source=source, options=BuildOptions(max_bad_rows=1))
    rejected = {name: summary.rejected for name, summary in summaries.items()}
    assert rejected == {**dict.fromkeys(SMALL, 0), split: 1}
    assert "line 5" in summaries[split].first_errors[0]
    assert summaries[split].rows == SMALL[split] - 1


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_of_one_class_is_refused(source, out, split):
    path = source / f"{split}.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *("1" + line[1:] for line in lines[1:])]) + "\n")
    with pytest.raises(UserError, match=rf"split '{split}': all {SMALL[split]} labels are 1"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)


def test_missing_things_are_named(source, out, tmp_path):
    with pytest.raises(UserError, match="'frape' is unknown; use one of"):
        prepare("frape", out, source=source)
    with pytest.raises(UserError, match="say where with --source"):
        prepare("frappe", out)
    with pytest.raises(UserError, match="no such folder"):
        prepare("frappe", out, source=tmp_path / "none")
    (source / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"no file for split 'valid'; looked for valid\.csv"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)


def test_two_files_for_one_split_are_refused(source, out):
    (source / "train.csv.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"as train.csv and train.csv.gz; keep one"):
        prepare("frappe", out, source=source)


def test_options_reach_every_column():
    schema = click_logs.Criteo.SCHEMA
    changed = BuildOptions(min_count=7, numeric="quantile", buckets=9, separate_missing=True)
    for column, other in zip(schema.fields, changed.apply(schema).fields, strict=True):
        assert (other.min_count, other.separate_missing, other.name) == (7, True, column.name)
        if hasattr(other, "transform"):
            assert (other.transform, other.buckets) == ("quantile", 9)
    assert BuildOptions().apply(schema) == schema


def test_vocabulary_options_reach_the_columns_that_have_one():
    schema = Schema(
        (
            Label("y"),
            Categorical("c", min_count=3),
            Categorical("h", hash_buckets=5),
            Categorical("i", dtype="id", size=5),
            Numeric("x", transform="log2_floor"),
            Timestamp("t"),
            MultiValued("g", min_count=3),
            History("p", shares_with="c"),
        )
    )

    def fields(**options):
        return {field.name: field for field in BuildOptions(**options).apply(schema).fields}

    found = fields(min_count=7, max_size=9, separate_missing=True)
    assert found["c"] == Categorical("c", min_count=7, max_size=9, separate_missing=True)
    assert found["h"] == Categorical("h", hash_buckets=5, separate_missing=True)
    assert found["x"].min_count == 7
    assert found["t_hour"].separate_missing
    assert found["g"] == MultiValued("g", min_count=7, max_size=9, separate_missing=True)
    assert found["p"] == History("p", shares_with="c")
    found = fields(min_count=7, max_size=9, hash_buckets=100)
    assert found["c"] == Categorical("c", hash_buckets=100)
    assert found["h"] == Categorical("h", hash_buckets=100)
    assert found["i"] == Categorical("i", dtype="id", size=5)
    assert found["x"].min_count == 7
    assert found["g"] == MultiValued("g", hash_buckets=100)
    assert found["p"] == History("p", shares_with="c")
    found = fields(history_length=7)
    assert found["g"] == MultiValued("g", min_count=3)
    assert found["p"] == History("p", shares_with="c", max_length=7)


def test_a_hashed_set_is_encoded_as_its_encoder_says(source, out):
    summaries = prepare("frappe", out, source=source, options=BuildOptions(hash_buckets=50))
    data = PreparedData("frappe", out)
    assert data.encoder.field_dims == (51,) * 10
    for split, rows in SMALL.items():
        (table,) = read_tables(source / f"{split}.csv", data.encoder.schema)
        (batch,) = data.batches(split, rows)
        np.testing.assert_array_equal(batch["ids"], data.encoder.encode(table).ids)
        assert (batch["ids"] > 0).all()
    assert "ids of each field: user 51, " in describe(summaries, data.encoder)


LISTS = Schema(
    (
        Label("y"),
        Categorical("item", "integer"),
        MultiValued("tags", max_length=2, weight_separator=":"),
        History("past", "integer", max_length=3, shares_with="item"),
    )
)


def list_rows(count, seed):
    rng = np.random.default_rng(seed)
    past = [rng.integers(0, 9, rng.integers(0, 6)).tolist() for _ in range(count)]
    tags = [
        {f"t{tag}": 0.5 * (1 + tag) for tag in rng.permutation(4)[: rng.integers(0, 4)]}
        for _ in range(count)
    ]
    items = rng.integers(0, 9, count).tolist()
    return {"y": [0, 1] * (count // 2), "item": items, "tags": tags, "past": past}


def write_lists(path, count, seed):
    """Rows with cells of several values, as text or as lists."""
    rows = list_rows(count, seed)
    if path.suffix == ".parquet":
        pair = pa.map_(pa.string(), pa.float64())
        tags = pa.array([list(tags.items()) for tags in rows["tags"]], pair)
        pa_parquet.write_table(pa.table({**rows, "tags": tags}), path)
        return
    text = {
        **rows,
        "tags": ["|".join(f"{t}:{w}" for t, w in tags.items()) for tags in rows["tags"]],
        "past": ["|".join(map(str, past)) for past in rows["past"]],
    }
    lines = [",".join(text), *(",".join(map(str, r)) for r in zip(*text.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_several_values_are_encoded_described_and_read_again(tmp_path, out, kind):
    counts = {"train": 5000, "valid": 60, "test": 60}  # More than a block.
    for seed, (split, count) in enumerate(counts.items()):
        write_lists(tmp_path / f"{split}.{kind}", count, seed)
    options = BuildOptions(schema=LISTS.to_dict())
    summaries = prepare("tabular", out, source=tmp_path, options=options)
    data = PreparedData("tabular", out)
    assert data.encoder.schema == LISTS
    for seed, (split, count) in enumerate(counts.items()):
        tables = read_tables(tmp_path / f"{split}.{kind}", LISTS)
        expected = data.encoder.encode(pa.concat_tables(tables))
        (batch,) = data.batches(split, count)
        assert batch["ids"].shape == (count, 6)
        for name in ("ids", "values", "labels"):
            np.testing.assert_array_equal(batch[name], getattr(expected, name))
        rows = list_rows(count, seed)
        longer = {name: sum(len(cell) > most for cell in rows[name])
                  for name, most in (("tags", 2), ("past", 3))}  # fmt: skip
        assert summaries[split].longer == longer
        assert all(longer.values())
    text = describe(summaries, data.encoder)
    told = f"past: {summaries['train'].longer['past']:,} rows have more than max_length=3 values"
    assert told + ", of which the last are kept" in text
    assert "of which the first are kept" in text
    assert "item 10, tags 5 in 2 slots, past those of item in 3 slots" in text
    assert "3 fields, 15 table rows in all" in text


def test_a_model_reads_vectors_as_a_projection(tmp_path, out):
    schema = Schema((Label("y"), Vector("text", 3), Categorical("c"), Vector("image", 2)))
    rng = np.random.default_rng(0)
    vectors = {}
    for split, count in (("train", 5000), ("valid", 50), ("test", 50)):
        found = rng.normal(size=(count, 5)).astype(np.float32)
        vectors[split] = found
        rows = {"y": [0, 1] * (count // 2), "text": list(found[:, :3]), "c": ["a"] * count}
        table = pa.table({**rows, "image": list(found[:, 3:])})
        pa_parquet.write_table(table, tmp_path / f"{split}.parquet")
    options = BuildOptions(schema=schema.to_dict())
    summaries = prepare("tabular", out, source=tmp_path, options=options)
    data = PreparedData("tabular", out)
    of_vectors = [0, 1, 2, 4, 5]
    for split, expected in vectors.items():
        (batch,) = data.batches(split, len(expected))
        np.testing.assert_array_equal(batch["values"][:, of_vectors], expected)
        (shuffled,) = data.batches(split, len(expected), seed=1)
        assert sorted(shuffled["values"][:, of_vectors].tolist()) == sorted(expected.tolist())
    told = describe(summaries, data.encoder)
    assert "text 3 in 3 slots, c 2, image 2 in 2 slots" in told

    experiment = Experiment.from_mapping(
        {"data": {"name": "tabular", "folder": str(out)}, "model": {"name": "dnn", "embed_dim": 4}}
    )
    model = experiment.build_model(data.encoder)
    params = model.init(jax.random.key(0), batch["ids"], batch["values"])["params"]
    rows = model.apply({"params": params}, batch["ids"], method=lambda m, ids: m.table(ids))
    embeddings = rows.embeddings(batch["values"])
    table, x = np.asarray(params["table"]["embedding"], np.float64), vectors["test"]
    np.testing.assert_allclose(embeddings[:, 0], x[:, :3] @ table[:3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(embeddings[:, 2], x[:, 3:] @ table[5:], rtol=1e-4, atol=1e-6)


def test_crosses_are_encoded_described_and_read_again(source, out):
    options = BuildOptions(crosses=(("item", "user"), ("user", "city", "cost")), cross_buckets=5000)
    prepare("frappe", out, source=source, options=options)
    data = PreparedData("frappe", out)
    for split, rows in SMALL.items():
        (table,) = read_tables(source / f"{split}.csv", data.encoder.schema)
        (batch,) = data.batches(split, rows)
        assert batch["ids"].shape == (rows, 12)
        np.testing.assert_array_equal(batch["ids"], data.encoder.encode(table).ids)
    text = describe(data.summaries, data.encoder)
    assert "buckets of each cross: item x user 5,000, user x city x cost 5,000" in text
    total = sum(data.encoder.field_dims)
    assert f"10 fields and 2 crosses, {total:,} table rows in all" in text


def test_crosses_of_a_prepared_set_are_compared_as_data(source, out):
    options = BuildOptions(crosses=(("item", "user"),))
    prepare("frappe", out, source=source, options=options)
    path = dataset_folder("frappe", out) / "options.json"
    before = path.stat().st_mtime_ns
    from_json = BuildOptions(**json.loads(path.read_text()))
    assert from_json == options
    prepare("frappe", out, source=source, options=from_json)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"with crosses=\(\('item', 'user'\),\), not crosses=\(\)"):
        prepare("frappe", out, source=source)
    with pytest.raises(UserError, match="'usr' is not a categorical or numeric column; those are"):
        prepare("frappe", out, source=source, options=BuildOptions(crosses=(("item", "usr"),)))


def test_an_option_younger_than_the_data_set_had_its_default(source, out):
    prepare("frappe", out, source=source)
    path = dataset_folder("frappe", out) / "options.json"
    written = json.loads(path.read_text())
    del written["crosses"], written["cross_buckets"]
    path.write_text(json.dumps(written))
    prepare("frappe", out, source=source)
    with pytest.raises(UserError, match="was prepared with cross_buckets=100000"):
        prepare("frappe", out, source=source, options=BuildOptions(cross_buckets=9))


def test_an_option_of_a_newer_version_is_named(source, out):
    prepare("frappe", out, source=source)
    path = dataset_folder("frappe", out) / "options.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(UserError, match=r"options\.json has option 'colour'.*of a newer one"):
        prepare("frappe", out, source=source)
    prepare("frappe", out, source=source, overwrite=True)
    assert "colour" not in path.read_text()


def test_crosses_of_a_config_file_are_lists_of_lists():
    options = from_mapping(BuildOptions, {"crosses": [["C1", "C2"]], "cross_buckets": 9}, "")
    assert options == BuildOptions(crosses=(("C1", "C2"),), cross_buckets=9)
    schema = options.apply(click_logs.Criteo.SCHEMA)
    assert schema.crosses == (Cross(("C1", "C2"), 9),)
    for wrong in ("C1,C2", ["C1", "C2"], [["C1", "C2"], "C3"]):  # One level of lists too few.
        with pytest.raises(UserError, match="must be a list of lists of columns"):
            from_mapping(BuildOptions, {"crosses": wrong}, "")


def test_crosses_see_the_transform_that_the_options_choose():
    options = BuildOptions(numeric="log", crosses=(("C1", "I3"),))
    with pytest.raises(UserError, match="transform 'log' makes column 'I3' a value"):
        options.apply(click_logs.Criteo.SCHEMA)


def test_criteo_of_three_files_encodes_as_its_encoder_says(tmp_path, out):
    click_logs.write_criteo(tmp_path, {"train": 300, "valid": 60, "test": 60})
    prepare("criteo", out, source=tmp_path)
    data = PreparedData("criteo", out)
    (table,) = read_tables(tmp_path / "test.tsv", data.encoder.schema)
    expected = data.encoder.encode(table)
    (batch,) = data.batches("test", 60)
    np.testing.assert_array_equal(batch["ids"], expected.ids)
    np.testing.assert_array_equal(batch["labels"], expected.labels)


def test_criteo_of_one_file_is_split_once_and_for_all(tmp_path, out):
    lines = click_logs.criteo_lines(2000)
    lines[10] = lines[10] + "\textra"
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.txt").write_text(lines[0][2:] + "\n")  # The challenge's, without labels.
    summaries = prepare("criteo", out, source=tmp_path, options=BuildOptions(max_bad_rows=1))
    rows = {split: summary.rows for split, summary in summaries.items()}
    assert sum(rows.values()) == 1999
    assert 1540 < rows["train"] < 1660
    assert {split: s.rejected for split, s in summaries.items()} == {
        "train": 1, "valid": 0, "test": 0,
    }  # fmt: skip
    assert sum(summary.read for summary in summaries.values()) == 2000
    data = PreparedData("criteo", out)
    order = np.random.default_rng(2017).random(1999)
    assert rows["valid"] == int(((order >= 0.8) & (order < 0.9)).sum())
    assert sum(data.rows(split) for split in rows) == 1999


def test_synthetic_brings_its_oracle(out):
    options = BuildOptions(rows=3000)
    summaries = prepare("synthetic", out, options=options)
    assert {s: v.rows for s, v in summaries.items()} == {"train": 3000, "valid": 300, "test": 300}
    folder = dataset_folder("synthetic", out)
    oracle = json.loads((folder / "oracle.json").read_text())
    assert oracle.keys() == {"valid", "test"}
    assert 0.75 < oracle["valid"]["auc"] < 0.95
    assert oracle["valid"]["rows"] == 300
    assert BuildOptions(**json.loads((folder / "options.json").read_text())) == options
    assert PreparedData("synthetic", out).oracle == oracle


@pytest.mark.parametrize(("name", "rows", "dims"), [("frappe", 202_027, 5389)])
def test_the_real_data_are_read_whole(data_folder, out, name, rows, dims):
    summaries = prepare(name, out, source=data_folder / name)
    assert summaries["train"].rows == rows
    assert sum(Encoder.load(dataset_folder(name, out)).field_dims) == dims


def test_a_folder_of_something_else_is_left_alone(source, out):
    folder = dataset_folder("frappe", out)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not a data set that prepare made"):
        prepare("frappe", out, source=source)
    assert (folder / "mine.txt").read_text() == "precious"
