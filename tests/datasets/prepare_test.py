import json

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from deepfm_jax import Categorical, History, Label, MultiValued, Schema, Vector
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.training.settings import Experiment
from tests import click_logs
from tests.encoders import field_rows


def test_counts_are_those_of_the_files(prepared, frappe_files):
    summaries = prepare("frappe", prepared, source=frappe_files)
    assert {split: s.rows for split, s in summaries.items()} == click_logs.ROWS
    for split, summary in summaries.items():
        lines = (frappe_files / f"{split}.csv").read_text().splitlines()[1:]
        assert summary.read == len(lines)
        assert summary.positives == sum(line[0] == "1" for line in lines)
        assert summary.rejected == 0


def test_description_shows_rows_and_vocabularies(prepared, frappe_files):
    summaries = prepare("frappe", prepared, source=frappe_files)
    text = describe(summaries, Encoder.load(dataset_folder("frappe", prepared)))
    assert "10,000" in text
    assert "user 21" in text
    assert "10 fields, 210 table rows in all" in text


def test_vocabularies_see_only_the_training_split(source, out):
    text = (source / "valid.csv").read_text().splitlines()
    text[1] = "1," + ",".join(["999"] * 10)
    (source / "valid.csv").write_text("\n".join(text) + "\n")
    prepare("frappe", out, source=source)
    encoder = Encoder.load(dataset_folder("frappe", out))
    assert all(999 not in coder.vocabulary.to_pylist() for coder in encoder.coders)
    first = next(iter(PreparedData("frappe", out).batches("valid", 8)))
    assert first["ids"][0].tolist() == [0] * 10
    assert (first["ids"][1:] > 0).any()


def test_a_hashed_set_is_encoded_as_its_encoder_says(source, out):
    summaries = prepare("frappe", out, source=source, options=BuildOptions(hash_buckets=50))
    data = PreparedData("frappe", out)
    assert field_rows(data.encoder) == (51,) * 10
    for split, rows in click_logs.SMALL.items():
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
    """Writes rows with cells of several values, as text or as lists."""
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
def test_columns_of_several_values_are_encoded_described_and_read_back(tmp_path, out, kind):
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
    longer = f"past: {summaries['train'].longer['past']:,} rows have more than max_length=3 values"
    assert longer + "; the last ones are kept" in text
    assert "; the first ones are kept" in text
    assert "item 10, tags 5 in 2 slots, past shared with item in 3 slots" in text
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
    for split, expected in vectors.items():
        (batch,) = data.batches(split, len(expected))
        np.testing.assert_array_equal(batch["dense"], expected)
        (shuffled,) = data.batches(split, len(expected), seed=1)
        assert sorted(shuffled["dense"].tolist()) == sorted(expected.tolist())
    assert "values" not in batch
    reported = describe(summaries, data.encoder)
    assert "text 3 numbers, c 2, image 2 numbers" in reported

    experiment = Experiment.from_mapping(
        {"data": {"name": "tabular", "folder": str(out)}, "model": {"name": "dnn", "embed_dim": 4}}
    )
    model = experiment.build_model(data.encoder)
    params = model.init(jax.random.key(0), batch["ids"], None, batch["dense"])["params"]

    def fields(model, ids, dense):
        return model.inputs(model.table(ids), None, dense)

    found = model.apply({"params": params}, batch["ids"], batch["dense"], method=fields)
    kernels = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["inputs"])
    x = vectors["test"]
    for field, expected in (
        (0, x[:, :3] @ kernels["dense_0_kernel"]),
        (2, x[:, 3:] @ kernels["dense_2_kernel"]),
    ):
        np.testing.assert_allclose(found.embeddings[:, field], expected, rtol=1e-4, atol=1e-6)


def test_crosses_are_encoded_described_and_read_back(source, out):
    options = BuildOptions(crosses=(("item", "user"), ("user", "city", "cost")), cross_buckets=5000)
    prepare("frappe", out, source=source, options=options)
    data = PreparedData("frappe", out)
    for split, rows in click_logs.SMALL.items():
        (table,) = read_tables(source / f"{split}.csv", data.encoder.schema)
        (batch,) = data.batches(split, rows)
        assert batch["ids"].shape == (rows, 12)
        np.testing.assert_array_equal(batch["ids"], data.encoder.encode(table).ids)
    text = describe(data.summaries, data.encoder)
    assert "buckets of each cross: item x user 5,000, user x city x cost 5,000" in text
    total = sum(field_rows(data.encoder))
    assert f"10 fields and 2 crosses, {total:,} table rows in all" in text


def test_criteo_of_three_files_encodes_as_its_encoder_says(tmp_path, out):
    click_logs.write_criteo(tmp_path, {"train": 300, "valid": 60, "test": 60})
    prepare("criteo", out, source=tmp_path)
    data = PreparedData("criteo", out)
    (table,) = read_tables(tmp_path / "test.tsv", data.encoder.schema)
    expected = data.encoder.encode(table)
    (batch,) = data.batches("test", 60)
    np.testing.assert_array_equal(batch["ids"], expected.ids)
    np.testing.assert_array_equal(batch["labels"], expected.labels)


def test_criteo_of_one_file_is_split_reproducibly(tmp_path, out):
    lines = click_logs.criteo_lines(2000)
    lines[10] = lines[10] + "\textra"
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.txt").write_text(
        lines[0][2:] + "\n"
    )  # The challenge's test file has no labels.
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
def test_the_real_data_are_read_completely(data_folder, out, name, rows, dims):
    summaries = prepare(name, out, source=data_folder / name)
    assert summaries["train"].rows == rows
    assert sum(field_rows(Encoder.load(dataset_folder(name, out)))) == dims
