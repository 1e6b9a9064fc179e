"""What a comparison refuses before training, and how it reports failed runs; runs are faked."""

import dataclasses
import json

import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.errors import PreemptedError
from deepfm_jax.evaluation import compare as comparison
from deepfm_jax.evaluation.comparison_report import comparison_figure, comparison_tables
from deepfm_jax.metrics import BinaryMetrics, TaskMetrics
from tests import experiment_settings

LR, FM = {"name": "lr"}, {"name": "fm", "embed_dim": 4}
DIVERGED = "the training loss is nan at step 9; lower optimizer.learning_rate"


@pytest.fixture
def experiments(prepared):
    small = experiment_settings.small
    return {label: small(prepared, model=model) for label, model in (("lr", LR), ("fm", FM))}


@pytest.fixture
def ran(monkeypatch):
    """Fakes runs; ``runs`` records them by label and seed, and ``errors`` makes them fail."""
    ran = {"runs": [], "errors": {}}

    def end(experiment, folder):
        key = (folder.parent.name, int(folder.name))
        assert experiment.seed == key[1]
        ran["runs"].append(key)
        if key in ran["errors"]:
            raise ran["errors"][key]
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
        rng = np.random.default_rng((len(key[0]), key[1]))
        labels = np.arange(200) % 2.0
        scored = TaskMetrics(
            {"label": BinaryMetrics(labels + rng.normal(size=200), labels, np.ones(200))}
        )
        metrics = scored.compute()
        results = {
            "metrics": {"valid": metrics, "test": metrics},
            "throughput": {"train_examples_per_second": 1e4},
            "best_step": 3,
            "parameters": 211,
            "dataset": {"name": "frappe", "rows": {"test": 200}},
            "versions": {},
        }
        stage_epochs = 4.0 if key[0] == "fm" else None
        return comparison._Run(results, scored, metrics, key[1] / 2, stage_epochs)

    monkeypatch.setattr(comparison, "_run", end)
    return ran


def compare(experiments, folder, seeds=(1, 2), **options):
    return comparison.compare(
        experiments, seeds, folder, **{"baseline": "lr", "resamples": 100, **options}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"name": "final_mlp", "embed_dim": 4, "mlp_dims": [9], "heads": 2}},
            "heads=2 does not divide",
        ),
        ({"model": {"name": "dcn_v2", "embed_dim": 4, "rank": -1}}, "model.rank=-1 must be"),
        (
            {"model": {**FM, "table_dtype": "bfloat16"}, "optimizer": {"table": "dense"}},
            "needs optimizer.table='sparse'",
        ),
        ({"model": {**FM, "embed_dims": 4}}, "did you mean 'embed_dim'"),
        ({"loop": {"batch_size": 9}}, "multiple of 8"),
        (
            {
                "model": {"name": "dnn", "embed_dim": 3, "mlp_dims": [8]},
                "pretraining": {"model": FM, "loop": {"epochs": 1}},
            },
            r"table\.embedding is .* in the pretraining stage",
        ),
        ({"pretraining": {"model": {**FM, "table_dtype": "float16"}}}, "float16"),
        ({"warm_start": "no/run"}, "workdir no/run holds no run"),
        ({"pretrained_vectors": {"item": "none.parquet"}}, "pretrained_vectors.item: none.parquet"),
    ],
)
def test_a_wrong_model_is_refused_before_earlier_ones_train(
    experiments, prepared, tmp_path, ran, changes, message
):
    experiments["wrong"] = experiment_settings.small(prepared, **changes)
    with pytest.raises(UserError, match=rf"^wrong: .*{message}"):
        compare(experiments, tmp_path / "comparison")
    assert not ran["runs"]
    assert not (tmp_path / "comparison").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "deepfm"}, "baseline 'deepfm' is not compared"),
        ({"resamples": 0}, "resamples=0 must be at least 100"),
        ({"resamples": 99}, "resamples=99 must be at least 100"),
        ({"seeds": ()}, "give at least one"),
        ({"seeds": (1, 1)}, "without duplicates"),
        ({"seeds": (1, -1)}, "seed -1 must be at least 0"),
        ({"seeds": (1 << 32,)}, r"seed 4294967296 must be .* less than 2\^32"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_written(
    experiments, tmp_path, ran, options, message
):
    with pytest.raises(UserError, match=message):
        compare(experiments, tmp_path / "comparison", **options)
    assert not ran["runs"]
    assert not (tmp_path / "comparison").exists()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        *((label, "must not be a path") for label in ("", "..", ".", "../lr", "a/b", "/a", "a\\b")),
        *((label, "must not have surrounding spaces") for label in (" a", "a\n", "a\x00b")),
        *((label, "are reserved") for label in ("results.json", "comparison.png", "Checkpoints")),
    ],
)
def test_a_label_must_be_a_free_folder_name(experiments, tmp_path, ran, label, message):
    with pytest.raises(UserError, match=message):
        compare(experiments | {label: experiments["lr"]}, tmp_path / "comparison")
    assert not ran["runs"]


def test_a_single_runs_workdir_is_refused(experiments, tmp_path, ran):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds a single run"):
        compare(experiments, tmp_path)
    assert not ran["runs"]


def test_extreme_seeds_and_labels_of_several_words_are_accepted(experiments, tmp_path, ran):
    models = {"lr": experiments["lr"], "FM, 4 numbers": experiments["fm"]}
    compare(models, tmp_path, seeds=(0, (1 << 32) - 1))
    assert ("FM, 4 numbers", (1 << 32) - 1) in ran["runs"]


def test_a_model_that_fails_is_named_and_the_others_are_compared(experiments, tmp_path, ran):
    experiments["deepfm"] = dataclasses.replace(experiments["fm"])
    ran["errors"]["fm", 2] = UserError(DIVERGED)
    results = compare(experiments, tmp_path, seeds=(1, 2, 3))
    # The failed model is not trained with further seeds.
    assert [key for key in ran["runs"] if key[0] == "fm"] == [("fm", 1), ("fm", 2)]
    assert ("deepfm", 3) in ran["runs"]
    assert list(results["models"]) == ["lr", "deepfm"]
    assert results["failed"] == {"fm": {"seed": 2, "error": DIVERGED}}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "comparison.png").exists()
    last = comparison_tables(results).splitlines()[-1]
    assert f"fm, seed 2: {DIVERGED}; finished runs are kept" in last
    assert "--models without fm" in last
    comparison_figure(results)


def test_without_the_baseline_the_others_are_trained_and_nothing_is_compared(
    experiments, tmp_path, ran
):
    ran["errors"]["lr", 1] = UserError(DIVERGED)
    with pytest.raises(UserError, match=rf"^lr, seed 1: {DIVERGED}; .* another with --baseline$"):
        compare(experiments, tmp_path)
    assert ran["runs"] == [("lr", 1), ("fm", 1), ("fm", 2)]
    assert not (tmp_path / "results.json").exists()


def test_a_request_to_stop_stops_the_comparison(experiments, tmp_path, ran):
    ran["errors"]["lr", 1] = PreemptedError("the scheduler asked to stop")
    with pytest.raises(PreemptedError):
        compare(experiments, tmp_path)
    assert ran["runs"] == [("lr", 1)]


def test_finished_runs_that_are_not_named_are_reported(experiments, tmp_path, ran):
    for run in ("dnn/1", "dnn/3", "lr/7", "dcn_v2/notes"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "results.json").write_text("{}")
    (tmp_path / "fm" / "8").mkdir(parents=True)  # Begun but not finished.
    results = compare(experiments, tmp_path)
    assert results["left_out"] == {"dnn": [1, 3], "lr": [7]}
    last = comparison_tables(results).splitlines()[-1]
    assert last.endswith("not in this report: dnn, seeds 1, 3; lr, seed 7")


def test_a_clean_comparison_reports_no_failures_or_other_runs(experiments, tmp_path, ran):
    results = compare(experiments, tmp_path)
    assert results["failed"] == results["left_out"] == {}
    assert len(comparison_tables(results).split("\n\n")) == 2


def test_one_seed_leaves_open_what_separates(experiments, tmp_path, ran):
    results = compare(experiments, tmp_path, seeds=(1,))
    table = comparison_tables(results)
    for difference in results["models"]["fm"]["difference"].values():
        assert difference["separates"] is None
    (row,) = [line for line in table.split("\n\n")[1].splitlines() if line.startswith("fm")]
    assert row.split().count("-") == 2
    assert "one seed does not show the spread between seeds" in table
    comparison_figure(results)


def test_the_number_of_comparisons_is_reported(experiments, tmp_path, ran):
    models = experiments | {"deepfm": experiments["fm"]}
    differences = comparison_tables(compare(models, tmp_path)).split("\n\n")[1]
    assert "\n4 comparisons; the intervals are not widened" in differences


def test_epochs_are_reported_with_those_of_pretraining(experiments, tmp_path, ran):
    results = compare(experiments, tmp_path, seeds=(1, 2, 4))
    for label, stage in (("lr", None), ("fm", 4.0)):
        model = results["models"][label]
        assert [run["epochs"] for run in model["runs"].values()] == [0.5, 1.0, 2.0]
        assert model["epochs"] == pytest.approx(3.5 / 3)
        assert model["pretraining_epochs"] == stage
    metrics = comparison_tables(results).split("\n\n")[0].splitlines()
    assert "epochs" in metrics[0]
    assert "  1.2 " in metrics[1]
    assert "  4.0 + 1.2 " in metrics[2]
