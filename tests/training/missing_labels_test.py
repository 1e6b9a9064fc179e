"""Rows that lack some of several labels: read, prepared, trained on, measured and scored."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from deepfm_jax import Categorical, Label, Schema, UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.evaluation.compare import compare
from deepfm_jax.evaluation.evaluate import evaluate_file, evaluate_split
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_tables, typed_table
from deepfm_jax.schema import TextFormat
from deepfm_jax.serving import Predictor
from deepfm_jax.serving.predict import predict_file
from deepfm_jax.training.loop import train
from tests import click_logs, experiment_settings

TASKS = ("click", "ordered")
ROWS = {"train": 6000, "valid": 1000, "test": 1003}
SMALL = Schema(
    (
        Categorical("item"),
        Label("click"),
        Label("ordered", positive="yes"),
        Label("liked", values=("no", "yes")),
    ),
    TextFormat(delimiter=",", header=True, missing=("?",)),
)
NAN = np.nan


def read(path, schema=SMALL, **options):
    tables = list(read_tables(path, schema, **options))
    return pa.concat_tables(tables).select(["click", "ordered", "liked"]).to_pandas()


def test_a_row_is_kept_with_any_of_its_labels(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("item,click,ordered,liked\na,1,,?\nb, ,no, yes\nc,,,no\nd,0,yes,no\n")
    expected = [[1, NAN, NAN], [NAN, 0, 1], [NAN, NAN, 0], [0, 1, 0]]
    np.testing.assert_array_equal(read(path), expected)
    cells = {
        "item": list("abcd"),
        "click": [1.0, NAN, None, 0.0],
        "ordered": [None, "no", "", "yes"],
        "liked": ["?", "yes", "no", "no"],
    }
    pq.write_table(pa.table(cells), tmp_path / "rows.parquet")
    np.testing.assert_array_equal(read(tmp_path / "rows.parquet"), expected)
    typed = typed_table(pd.DataFrame(cells), SMALL, labelled=True)
    np.testing.assert_array_equal(typed.select(["click", "ordered", "liked"]).to_pandas(), expected)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,,", "column click: value missing is not a label, 0 or 1"),
        ("a,?, ,", "column click: value '?' is not a label, 0 or 1"),
        ("a,maybe,yes,no", "column click: value 'maybe' is not a label, 0 or 1"),
        ("a,,yes,maybe", "column liked: value 'maybe' is not a label, 'no' or 'yes'"),
        ("a,nan,yes,no", "column click: value 'nan' is not a label, 0 or 1"),
    ],
)
def test_a_row_without_labels_or_with_another_text_stays_a_bad_row(tmp_path, row, message):
    path = tmp_path / "rows.csv"
    path.write_text(f"item,click,ordered,liked\nb,1,yes,no\n{row}\n")
    with pytest.raises(UserError, match="line 3, ") as error:
        read(path)
    assert message in str(error.value)
    report = RowReport()
    assert len(read(path, max_bad_rows=1, report=report)) == 1
    assert report.rejected == 1


def test_the_only_label_is_in_every_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("item,click\na,1\nb,\n")
    schema = Schema(SMALL.columns[:2], SMALL.text)
    with pytest.raises(UserError, match=r"line 3, column click: value .* is not a label, 0 or 1"):
        list(read_tables(path, schema))
    # Of a file without the other labels it is the only one too.
    with pytest.raises(UserError, match=r"line 3, column click: value .* is not a label, 0 or 1"):
        list(read_tables(path, SMALL, labelled=None))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of SHOP in which 30% of the rows lack ``click`` or ``ordered``, and one lacks both."""
    folder = tmp_path_factory.mktemp("shop_files")
    click_logs.write_shop(folder, ROWS)
    rng = np.random.default_rng(3)
    for split in ROWS:
        path = folder / f"{split}.csv"
        head, *rows = csv.reader(path.read_text().splitlines())
        for row in rows:
            if rng.random() < 0.3:
                row[3 + rng.integers(2)] = ""
        rows[7][3:] = ["", ""]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return folder


def labels_of(path):
    """The labels of a file's rows that have any, as floats with NaN."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    ordered = frame["ordered"].map({"": NAN, "yes": 1.0, "no": 0.0})
    found = pd.DataFrame({"click": pd.to_numeric(frame["click"]), "ordered": ordered})
    kept = found.notna().any(axis=1)
    return found[kept], frame["shown"].astype(float)[kept]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, files):
    out = tmp_path_factory.mktemp("shop")
    schema = click_logs.SHOP.to_dict()
    prepare("tabular", out, source=files, options=BuildOptions(schema=schema, max_bad_rows=1))
    return out


def settings(folder, labels="click,ordered", **changes):
    data = {"name": "tabular", "labels": labels, **changes.pop("data", {})}
    loop = {"epochs": 2, "batch_size": 512, "eval_batch_size": 256}
    return experiment_settings.small(folder, **{"data": data, "loop": loop, **changes})


def test_prepare_stores_the_labels_and_counts_the_missing_ones(shop, files):
    data = PreparedData("tabular", shop, TASKS)
    folder = dataset_folder("tabular", shop)
    reported = describe(data.summaries, Encoder.load(folder), folder)
    for split, rows in ROWS.items():
        expected, _ = labels_of(files / f"{split}.csv")
        parts = [b["labels"][: len(b["ids"])] for b in data.batches(split, rows - 1)]
        np.testing.assert_array_equal(np.concatenate(parts)[: rows - 1], expected)
        summary = json.loads((folder / f"rows_{split}.json").read_text())
        assert (summary["rows"], summary["rejected"]) == (rows - 1, 1)
        assert summary["positives_of"] == expected.sum().to_dict()
        assert summary["missing_of"] == expected.isna().sum().to_dict()
        assert data.summaries[split].positive_rates == pytest.approx(expected.mean().to_dict())
        rates = ", ".join(f"{task} {expected[task].mean():.4f}" for task in TASKS)
        missing = ", ".join(f"{task} in {expected[task].isna().sum():,} rows" for task in TASKS)
        assert f"  positive rates: {rates}\n  missing labels: {missing}\n" in reported


def test_data_without_missing_labels_are_stored_as_before(tmp_path):
    click_logs.write_shop(tmp_path, {"train": 500, "valid": 200, "test": 200})
    options = BuildOptions(schema=click_logs.SHOP.to_dict())
    summaries = prepare("tabular", tmp_path / "out", source=tmp_path, options=options)
    folder = dataset_folder("tabular", tmp_path / "out")
    assert summaries["train"].missing_of == {}
    assert not list(folder.glob("missing_*"))
    assert "missing labels" not in describe(summaries, Encoder.load(folder))


@pytest.mark.parametrize("task", [0, 1])
def test_down_sampling_leaves_out_rows_of_label_0_alone(shop, files, task):
    data = PreparedData("tabular", shop, TASKS[task : task + 1])
    expected = labels_of(files / "train.csv")[0][TASKS[task]]
    negatives = int((expected == 0).sum())
    kept = round(0.25 * negatives)
    assert data.rows("train", 0.25) == len(expected) - negatives + kept
    batches = list(data.batches("train", 512, seed=1, negative_rate=0.25))
    size = data.rows("train", 0.25)
    labels = np.concatenate([batch["labels"][:, 0] for batch in batches])[:size]
    assert (labels == 0).sum() == kept
    assert (labels == 1).sum() == (expected == 1).sum()
    assert np.isnan(labels).sum() == expected.isna().sum() > 800


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return train(settings(shop), workdir), workdir


def test_each_label_is_measured_on_the_rows_that_have_it(run, files, tmp_path):
    results, workdir = run
    predictor = Predictor(workdir)
    predict_file(predictor, files / "test.csv", tmp_path / "scored.csv", max_bad_rows=1)
    scored = pd.read_csv(tmp_path / "scored.csv")
    labels, weights = labels_of(files / "test.csv")
    assert len(scored) == len(labels) == ROWS["test"] - 1
    from_file = evaluate_file(predictor, files / "test.csv", max_bad_rows=1)
    from_split = evaluate_split(predictor, "test")
    for task in TASKS:
        known = (labels[task].notna() & (weights > 0)).to_numpy()
        arrays = labels[task][known], scored[f"probability_{task}"][known]
        expected = {
            "rows": known.sum(),
            "auc": roc_auc_score(*arrays, sample_weight=weights[known]),
            "logloss": log_loss(*arrays, sample_weight=weights[known]),
        }
        assert expected["auc"] > 0.6
        for found in (results["metrics"]["test"], from_file, from_split):
            reported = {key: found["tasks"][task][key] for key in expected}
            assert reported == pytest.approx(expected, rel=1e-4)


def test_a_run_on_one_of_the_labels_is_compared_on_the_rows_that_have_it(shop, files, tmp_path):
    changes = {"optimizer": {"learning_rate": 0.05}, "data": {"negative_rate": 0.5}}
    models = {
        name: settings(shop, labels="ordered", model={"name": name}, **changes)
        for name in ("fm", "lr")
    }
    results = compare(models, [1], tmp_path, baseline="lr", resamples=100)
    labels, weights = labels_of(files / "test.csv")
    known = labels["ordered"].notna() & (weights > 0)
    for model in results["models"].values():
        assert model["test"]["rows"]["mean"] == known.sum()
        assert 0.6 < model["test"]["auc"]["mean"] < 1
        assert model["test"]["calibration"]["mean"] == pytest.approx(1, abs=0.2)
