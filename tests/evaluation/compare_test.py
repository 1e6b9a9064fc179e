"""A real comparison of two models and two seeds: its results, tables, figure and checks."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.evaluation import compare as comparison
from deepfm_jax.evaluation.compare import compare
from deepfm_jax.evaluation.comparison_checks import check_data_and_runs
from deepfm_jax.evaluation.comparison_report import comparison_figure, comparison_tables
from deepfm_jax.evaluation.evaluate import score_split
from deepfm_jax.serving.predictor import Predictor
from deepfm_jax.training import trainer
from deepfm_jax.training.checkpoint import Checkpoints, Progress
from tests import click_logs, experiment_settings

SEEDS = (1, 2)
MODELS = {"lr": {"name": "lr"}, "fm": {"name": "fm", "embed_dim": 4}}


def experiments(folder, **changes):
    return {
        label: experiment_settings.small(
            folder,
            model=model,
            data={"name": "synthetic"},
            optimizer={"learning_rate": 0.02},
            **{"loop": {"epochs": 1}, **changes},
        )
        for label, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated")
    prepare("synthetic", out, options=BuildOptions(rows=4000))
    return out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def results(simulated, workdir):
    return compare(experiments(simulated), SEEDS, workdir, baseline="lr", resamples=100)


def test_means_and_deviations_are_those_of_the_runs(results, workdir):
    for label in MODELS:
        aucs = []
        for seed in SEEDS:
            scored = score_split(Predictor(workdir / label / str(seed)), "test")
            (state,) = scored.states.values()
            aucs.append(roc_auc_score(state.labels, state.logits))
        found = results["models"][label]["test"]["auc"]
        assert found["mean"] == pytest.approx(np.mean(aucs), abs=1e-12)
        assert found["std"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-12)
        assert found["std"] > 0


def test_runs_are_trained_with_their_own_seed(results, workdir):
    for label in MODELS:
        for seed in SEEDS:
            run = json.loads((workdir / label / str(seed) / "results.json").read_text())
            assert run["config"]["seed"] == seed
            assert run["config"]["model"] == MODELS[label]
            reported = results["models"][label]["runs"][str(seed)]["metrics"]
            # 1e-6: training scores on a mesh of devices, the predictor on one.
            for split in ("valid", "test"):
                expected = run["metrics"][split]["auc"]
                assert reported[split]["auc"] == pytest.approx(expected, abs=1e-6)


def test_differences_are_to_the_baseline_and_within_their_interval(results):
    models = results["models"]
    assert models["lr"]["difference"] is None
    for metric in ("auc", "logloss"):
        difference = models["fm"]["difference"][metric]
        expected = models["fm"]["test"][metric]["mean"] - models["lr"]["test"][metric]["mean"]
        assert difference["mean"] == pytest.approx(expected, abs=1e-12)
        low, high = difference["interval"]
        assert low < high
        assert difference["separates"] == (low > 0 or high < 0)


def test_the_written_results_are_the_returned_ones(results, workdir):
    assert json.loads((workdir / "results.json").read_text()) == results
    assert results["seeds"] == list(SEEDS)
    assert results["dataset"]["rows"]["train"] == 4000
    assert results["config"]["fm"]["model"] == MODELS["fm"]
    assert "seed" not in results["config"]["fm"]
    assert results["versions"]["jax"]
    assert (workdir / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_tables_show_metrics_differences_and_the_oracle(results):
    metrics, differences, oracle = comparison_tables(results).split("\n\n")
    for label in MODELS:
        (row,) = [line for line in metrics.splitlines() if line.startswith(label)]
        auc = results["models"][label]["test"]["auc"]
        assert f"{auc['mean']:.5f} ± {auc['std']:.5f}" in row
        assert f"{results['models'][label]['parameters']:,}" in row
    assert differences.startswith("minus lr")
    low, high = results["models"]["fm"]["difference"]["auc"]["interval"]
    assert f"[{low:+.5f}, {high:+.5f}]" in differences
    assert "over examples and seeds, 100 resamples" in differences
    assert f"best possible test AUC is {results['oracle']['auc']:.5f}" in oracle
    assert oracle.count("(logloss)") == len(MODELS)


def test_the_figure_has_a_row_for_each_model_and_a_dot_for_each_seed(results):
    for axes, metric in zip(comparison_figure(results).axes, ("auc", "logloss"), strict=True):
        dots = [line for line in axes.get_lines() if line.get_label() == "one seed"]
        for line, label in zip(dots, MODELS, strict=True):
            runs = results["models"][label]["runs"].values()
            drawn = [run["metrics"]["test"][metric] for run in runs]
            np.testing.assert_array_equal(line.get_xdata(), drawn)
        (bar,) = [line for line in axes.get_lines() if "interval" in str(line.get_label())]
        mean = results["models"]["lr"]["test"][metric]["mean"]
        ends = np.subtract(bar.get_xdata(), mean)
        expected = results["models"]["fm"]["difference"][metric]["interval"]
        np.testing.assert_allclose(ends, expected, atol=1e-12)
    left = comparison_figure(results).axes[0]
    assert [text.get_text() for text in left.get_yticklabels()] == list(MODELS)


def test_a_model_far_from_the_rest_is_an_arrow_and_leaves_them_room(results):
    near, baseline = results["models"]["fm"], results["models"]["lr"]
    far = copy.deepcopy(near)
    far["test"]["auc"]["mean"] = baseline["test"]["auc"]["mean"] - 0.4
    models = {"lr": baseline, "a": near, "b": near, "c": near, "far": far}
    auc, logloss = comparison_figure(results | {"models": models}).axes
    for axes, arrows in ((auc, 1), (logloss, 0)):
        labels = [line.get_label() for line in axes.get_lines()]
        assert labels.count("beyond the axis") == arrows
        assert labels.count("one seed") == len(models) - arrows
    assert auc.get_xlim()[0] > far["test"]["auc"]["mean"] + 0.1


def test_finished_runs_are_not_trained_again(simulated, workdir, results, monkeypatch):
    def refuse(*_):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(trainer.Trainer, "_run_epoch", refuse)
    again = compare(experiments(simulated), SEEDS, workdir, baseline="lr", resamples=100)
    assert again == results


def test_one_seed_and_one_model_are_enough(simulated, workdir, results):
    one = {"lr": experiments(simulated)["lr"]}
    alone = compare(one, SEEDS[:1], workdir, baseline="lr", resamples=100)
    assert alone["models"]["lr"]["test"]["auc"]["std"] is None
    assert "±" not in comparison_tables(alone)
    assert "minus" not in comparison_tables(alone)
    comparison_figure(alone)


def test_a_workdir_of_other_settings_is_refused_before_anything_trains(simulated, workdir, results):
    changed = experiment_settings.small(
        simulated, model=MODELS["fm"] | {"embed_dim": 5}, data={"name": "synthetic"}
    )
    with pytest.raises(UserError, match=r"fm/1 holds a run with model\.embed_dim=4"):
        compare({"fm": changed}, (7, 1), workdir, baseline="fm")
    assert not (workdir / "fm" / "7").exists()


def test_models_on_different_rows_are_not_compared(simulated, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    click_logs.write_frappe(source, {"train": 300, "valid": 100, "test": 100})
    prepare("frappe", out, source=source)
    mixed = {"a": experiment_settings.small(out), "b": experiments(simulated)["lr"]}
    with pytest.raises(UserError, match=r"b reads other rows or labels .* than a"):
        compare(mixed, SEEDS, tmp_path / "comparison", baseline="a")
    assert not (tmp_path / "comparison").exists()


def test_the_same_rows_may_be_encoded_with_crosses_for_one_model(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    click_logs.write_frappe(source, {"train": 600, "valid": 100, "test": 100})
    prepare("frappe", tmp_path / "plain", source=source)
    crosses = BuildOptions(crosses=(("user", "item"),), cross_buckets=50)
    prepare("frappe", tmp_path / "crossed", source=source, options=crosses)
    tower = {"name": "wide_deep", "embed_dim": 4, "mlp_dims": [8]}
    first_order = {"name": "ftrl", "learning_rate": 0.1}
    ftrl = {"table": "sparse", "first_order": first_order, "l1": {"first_order": 1e-4}}
    wide_deep = experiment_settings.small(
        tmp_path / "crossed", model=tower, optimizer=ftrl, loop={"epochs": 1}
    )
    models = {
        "lr": experiment_settings.small(
            tmp_path / "plain", model={"name": "lr"}, loop={"epochs": 1}
        ),
        "wide_deep": wide_deep,
    }
    results = compare(models, (1,), tmp_path / "comparison", baseline="lr", resamples=100)
    parameters = {label: of["parameters"] for label, of in results["models"].items()}
    rows = parameters["lr"] - 1
    # The crosses' 51 rows have one weight each and no vectors.
    assert parameters["wide_deep"] == rows * 5 + 51 + 1 + (40 * 8 + 8) + 9


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("epochs", 1, 2),
        ("patience", 0, 3),
        ("min_improvement", 1e-6, 0.1),
        ("evaluations_per_epoch", 1, 2),
        ("streams", 0, 2),
    ],
)
def test_a_run_of_another_budget_is_refused_before_anything_trains(
    simulated, workdir, results, key, old, new
):
    before = (workdir / "fm" / "2" / "config.json").read_bytes()
    changed = experiments(simulated, loop={"epochs": 1, key: new})
    message = (
        rf"fm/2 holds a run with loop\.{key}={old}, but this one has loop\.{key}={new}; "
        rf"choose another --workdir, or set loop\.{key}={old}$"
    )
    with pytest.raises(UserError, match=message):
        compare({"fm": changed["fm"]}, (7, 2), workdir, baseline="fm")
    assert not (workdir / "fm" / "7").exists()
    assert (workdir / "fm" / "2" / "config.json").read_bytes() == before


def test_a_run_may_have_other_logging_and_scoring_settings(simulated, workdir, results):
    loop = {"epochs": 1, "log_steps": 3, "checkpoint_steps": 4, "eval_batch_size": 512}
    check_data_and_runs(experiments(simulated, loop=loop), SEEDS, workdir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"lr/1 holds a run of 3 epochs, but this one has loop\.epochs=1; choose"),
        ({"fingerprint": "other"}, "lr: .* was trained on other rows"),
    ],
)
def test_the_progress_and_data_of_a_run_are_checked_beside_its_config(
    simulated, workdir, results, monkeypatch, changes, message
):
    found = Checkpoints.progress
    monkeypatch.setattr(
        Checkpoints,
        "progress",
        lambda self, step: dataclasses.replace(found(self, step), **changes),
    )
    with pytest.raises(UserError, match=message):
        compare(experiments(simulated), SEEDS, workdir, baseline="lr")


def test_epochs_are_those_that_a_run_was_trained_for(simulated, workdir, results, monkeypatch):
    assert [results["models"][label]["epochs"] for label in MODELS] == [1.0, 1.0]
    assert results["models"]["lr"]["pretraining_epochs"] is None
    at = Progress(epoch=2, batch=3)
    monkeypatch.setattr(Checkpoints, "progress", lambda self, step: at)
    # 4,000 examples in batches of 512.
    epochs = comparison._epochs(experiments(simulated)["lr"], workdir / "lr" / "1")
    assert epochs == 2 + 3 / 8
