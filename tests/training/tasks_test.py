"""Two labels of one data set, prepared, trained, evaluated, scored and compared together."""

import dataclasses
import json

import jax
import numpy as np
import pyarrow.csv as pa_csv
import pytest
from sklearn.metrics import roc_auc_score

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.evaluation.compare import compare
from deepfm_jax.evaluation.comparison_report import comparison_tables
from deepfm_jax.evaluation.evaluate import evaluate_file, evaluate_split, input_name
from deepfm_jax.serving import Predictor
from deepfm_jax.serving.predict import predict_file
from deepfm_jax.training.loop import train
from deepfm_jax.training.report import metrics_table
from tests import click_logs, experiment_settings

TASKS = ("click", "ordered")


def settings(folder, **changes):
    config = {
        "data": {"name": "tabular", "labels": "click, ordered"},
        "loop": {"epochs": 3, "batch_size": 512, "eval_batch_size": 256},
        **changes,
    }
    return experiment_settings.small(folder, **config)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop_files")
    click_logs.write_shop(folder, {"train": 4000, "valid": 1000, "test": 1003})
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory, files):
    out = tmp_path_factory.mktemp("shop")
    prepare("tabular", out, source=files, options=BuildOptions(schema=click_logs.SHOP.to_dict()))
    return out


@pytest.fixture(scope="module")
def run(shop, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return train(settings(shop), workdir), workdir


def test_a_run_learns_both_labels(run):
    results, workdir = run
    assert results["dataset"]["labels"] == list(TASKS)
    test = results["metrics"]["test"]
    assert set(test["tasks"]) == set(TASKS)
    aucs = [test["tasks"][task]["auc"] for task in TASKS]
    assert min(aucs) > 0.6
    assert test["auc"] == pytest.approx(np.mean(aucs))
    assert json.loads((workdir / "results.json").read_text())["metrics"]["test"] == test
    table = metrics_table(results["metrics"])
    assert "test, mean of tasks" in table
    assert "test, ordered" in table


@pytest.mark.parametrize("devices", [1, 3])
def test_a_split_is_evaluated_on_any_number_of_devices(run, devices):
    results, workdir = run
    predictor = Predictor(workdir, create_mesh(jax.devices()[:devices]))
    assert predictor.batch_size % devices == 0
    found = evaluate_split(predictor, "test")
    for task, metrics in results["metrics"]["test"]["tasks"].items():
        assert found["tasks"][task] == pytest.approx(metrics, rel=1e-4)


def test_a_file_is_scored_with_a_column_for_each_label(run, files, tmp_path):
    results, workdir = run
    predictor = Predictor(workdir)
    predict_file(predictor, files / "test.csv", tmp_path / "scored.csv")
    scored = pa_csv.read_csv(tmp_path / "scored.csv").to_pandas()
    assert list(scored)[-2:] == ["probability_click", "probability_ordered"]
    counted = scored["shown"] > 0
    for task, positive in (("click", 1), ("ordered", "yes")):
        auc = roc_auc_score(
            scored[task][counted] == positive,
            scored[f"probability_{task}"][counted],
            sample_weight=scored["shown"][counted],
        )
        assert auc == pytest.approx(results["metrics"]["test"]["tasks"][task]["auc"], abs=1e-6)
    assert predictor.predict(scored).shape == (1003, 2)
    found = evaluate_file(predictor, files / "test.csv")
    assert found["auc"] == pytest.approx(results["metrics"]["test"]["auc"], abs=1e-6)


def test_models_are_compared_by_each_label(shop, tmp_path):
    models = {
        name: settings(
            shop,
            model={"name": name},
            loop={"epochs": 1, "batch_size": 512, "eval_batch_size": 256},
        )
        for name in ("fm", "lr")
    }
    results = compare(models, [1, 2], tmp_path, baseline="lr", resamples=100)
    keys = [f"{task}/{metric}" for task in TASKS for metric in ("auc", "logloss")]
    assert results["metrics"] == keys
    difference = results["models"]["fm"]["difference"]
    for key in keys:
        means = [results["models"][name]["test"][key]["mean"] for name in ("fm", "lr")]
        assert difference[key]["mean"] == pytest.approx(means[0] - means[1], abs=1e-6)
    assert "ordered AUC" in comparison_tables(results)
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_a_run_goes_on_with_the_labels_and_the_head_that_it_began_with(shop, run):
    _, workdir = run
    with pytest.raises(UserError, match="holds a run with data"):
        train(settings(shop, data={"name": "tabular", "labels": "click"}), workdir)
    with pytest.raises(UserError, match="holds a run with head"):
        train(settings(shop, head={"name": "shared_bottom", "mlp_dims": [4]}), workdir)


def test_the_data_may_have_moved(run, shop, tmp_path, monkeypatch):
    results, workdir = run
    there = tmp_path / "moved"
    there.symlink_to(shop)
    monkeypatch.chdir(tmp_path)
    found = evaluate_split(Predictor(workdir), "test", "moved")
    assert found["auc"] == pytest.approx(results["metrics"]["test"]["auc"], rel=1e-6)
    # Another spelling of the folder finds the finished run, which does not train again.
    again = train(settings("moved"), workdir)
    assert again["best_step"] == results["best_step"]
    # The relative folder is stored so that it is found from another directory too.
    monkeypatch.chdir(workdir)
    assert evaluate_split(Predictor(workdir), "test")["auc"] == found["auc"]
    there.unlink()
    remedy = (
        rf"^{there}/tabular/[\d.]+: data set 'tabular' of the run does not exist; if it has "
        r"moved, pass the folder of prepared data sets as --data_folder$"
    )
    with pytest.raises(UserError, match=remedy):
        evaluate_split(Predictor(workdir), "test")
    assert evaluate_split(Predictor(workdir), "test", shop)["auc"] == found["auc"]
    with pytest.raises(UserError, match=r"if it has moved, set --config\.data\.folder to its"):
        train(settings("moved"), workdir)
    train(settings(shop), workdir)


def test_raw_files_are_named_after_the_first_of_them(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"day-{number}.csv").touch()
    assert input_name(tmp_path / "day-*.csv") == "day-1.csv_and_2_more"
    assert input_name(tmp_path / "day-2*") == "day-2.csv"
    with pytest.raises(UserError, match="no file matches"):
        input_name(tmp_path / "night-*.csv")


def test_negatives_are_sampled_for_one_label_alone(shop):
    with pytest.raises(UserError, match="samples the negatives of one label"):
        settings(shop, data={"name": "tabular", "labels": "click,ordered", "negative_rate": 0.5})
    one = settings(shop, data={"name": "tabular", "labels": "click", "negative_rate": 0.5})
    assert dataclasses.asdict(one)["data"]["labels"] == ("click",)
