"""Runs on one of several labels, on weighted rows in groups, and on a sample of the negatives."""

import json

import chex
import jax
import numpy as np
import pyarrow.csv as pa_csv
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from deepfm_jax import Ignored, Schema, UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.evaluation.compare import compare
from deepfm_jax.evaluation.evaluate import evaluate_file, evaluate_split, score_split
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.serving import Predictor
from deepfm_jax.serving.predict import predict_file
from deepfm_jax.training import trainer
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints, restore_best
from deepfm_jax.training.loop import train
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.report import metrics_table
from deepfm_jax.training.state import placement_for, weights_layout
from tests import click_logs, experiment_settings

RATE, EPOCHS, BATCH = 0.1, 6, 256
LR = {
    "model": {"name": "lr"},
    "optimizer": {"learning_rate": 0.05},
    "loop": {"epochs": 4, "eval_batch_size": 1024},
}


@pytest.fixture(scope="module")
def shop_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop_files")
    click_logs.write_shop(folder, {"train": 4000, "valid": 1000, "test": 1000})
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory, shop_files):
    out = tmp_path_factory.mktemp("shop")
    options = BuildOptions(schema=click_logs.SHOP.to_dict())
    prepare("tabular", out, source=shop_files, options=options)
    return out


def run_of(folder, workdir, **data):
    experiment = experiment_settings.small(folder, **LR, data={"name": "tabular", **data})
    return train(experiment, workdir)


@pytest.fixture(scope="module", params=["click", "ordered"])
def run(request, shop, tmp_path_factory):
    """A run on one of the labels: the label, the results and the workdir."""
    workdir = tmp_path_factory.mktemp(request.param)
    return request.param, run_of(shop, workdir, labels=request.param), workdir


def test_metrics_are_of_the_label_and_weighted(run, shop_files):
    label, results, workdir = run
    assert results["dataset"]["labels"] == [label]
    predictor = Predictor(workdir)
    (table,) = read_tables(shop_files / "test.csv", click_logs.SHOP)
    y, w = table[label].to_numpy(), table["shown"].to_numpy()
    p = predictor.probabilities(table)[:, 0]
    metrics = results["metrics"]["test"]
    assert metrics["rows"] == (w > 0).sum()
    assert metrics["auc"] == pytest.approx(roc_auc_score(y, p, sample_weight=w), abs=1e-6)
    assert metrics["logloss"] == pytest.approx(log_loss(y, p, sample_weight=w), abs=1e-6)
    assert metrics["calibration"] == pytest.approx((w * p).sum() / (w * y).sum(), abs=1e-5)
    assert metrics["auc"] > 0.7


def test_gauc_is_the_mean_over_the_known_users(run, shop_files):
    label, results, workdir = run
    (table,) = read_tables(shop_files / "test.csv", click_logs.SHOP)
    y, w = table[label].to_numpy(), table["shown"].to_numpy()
    z = Predictor(workdir).logits(table)[:, 0]
    users = np.array(table["user"].to_pylist(), object)
    aucs, counts = [], []
    for user in set(users) - {None}:
        rows = (users == user) & (w > 0)
        if len(set(y[rows])) == 2:
            aucs.append(roc_auc_score(y[rows], z[rows], sample_weight=w[rows]))
            counts.append(w[rows].sum())
    metrics = results["metrics"]["test"]
    assert metrics["gauc"] == pytest.approx(np.average(aucs, weights=counts), abs=1e-6)
    assert metrics["gauc_coverage"] == pytest.approx(sum(counts) / w.sum(), rel=1e-9)
    assert "GAUC" in metrics_table(results["metrics"])


def test_a_split_and_its_file_are_measured_alike(run, shop_files, tmp_path):
    label, results, workdir = run
    predictor = Predictor(workdir)
    expected = pytest.approx(results["metrics"]["test"], rel=1e-5)
    assert evaluate_split(predictor, "test") == expected
    assert evaluate_file(predictor, shop_files / "test.csv") == expected
    header, *lines = (shop_files / "test.csv").read_text().splitlines()
    names = header.split(",")

    def without(*dropped):
        kept = [place for place, name in enumerate(names) if name not in dropped]
        rows = (line.split(",") for line in (header, *lines))
        path = tmp_path / "some.csv"
        path.write_text("".join(",".join(row[i] for i in kept) + "\n" for row in rows))
        return path

    other = "ordered" if label == "click" else "click"
    assert evaluate_file(predictor, without(other)) == expected
    for name, role in ((label, "label"), ("shown", "weight")):
        with pytest.raises(UserError, match=f"column '{name}', the {role}, is missing"):
            evaluate_file(predictor, without(name))
    report = predict_file(predictor, without(label, other, "shown"), tmp_path / "scored.csv")
    assert report.kept == len(lines)


def test_a_label_that_is_not_there_is_reported_before_the_workdir_is_touched(shop, tmp_path):
    with pytest.raises(
        UserError, match=r"'bought' is not a label of the data set; it has click, ord"
    ):
        run_of(shop, tmp_path / "run", labels="bought")
    assert not (tmp_path / "run").exists()


def test_models_of_different_labels_are_not_compared(shop, tmp_path):
    experiments = {
        label: experiment_settings.small(shop, **LR, data={"name": "tabular", "labels": label})
        for label in ("click", "ordered")
    }
    with pytest.raises(UserError, match="ordered reads other rows or labels"):
        compare(experiments, (1,), tmp_path / "comparison", baseline="click")
    one = {"click": experiments["click"]}
    results = compare(one, (1,), tmp_path / "comparison", baseline="click", resamples=100)
    assert results["models"]["click"]["test"]["gauc"]["mean"] > 0.6


@pytest.fixture(scope="module")
def clicks_files(tmp_path_factory):
    """Enough rows to measure calibration to some percent, with a truth that LR can learn."""
    folder = tmp_path_factory.mktemp("clicks_files")
    click_logs.write_shop(folder, {"train": 10_000, "valid": 4000, "test": 8000})
    return folder


@pytest.fixture(scope="module")
def clicks(tmp_path_factory, clicks_files):
    out = tmp_path_factory.mktemp("clicks")
    user, item, _, click, _ = click_logs.SHOP.columns
    schema = Schema((user, item, Ignored("shown"), click, Ignored("ordered")))
    prepare("tabular", out, source=clicks_files, options=BuildOptions(schema=schema.to_dict()))
    return out


@pytest.fixture(scope="module")
def sampled(clicks, tmp_path_factory):
    """A run on a tenth of the negatives: the results and the workdir."""
    workdir = tmp_path_factory.mktemp("sampled")
    return train(_sampled_experiment(clicks), workdir), workdir


def _sampled_experiment(clicks, **changes):
    data = {"name": "tabular", "negative_rate": RATE}
    loop = {"epochs": EPOCHS, "batch_size": BATCH, "checkpoint_steps": 20}
    return experiment_settings.small(clicks, **{**LR, "data": data, "loop": loop, **changes})


def test_a_sample_of_the_negatives_is_corrected_for_everywhere(sampled, clicks_files):
    results, workdir = sampled
    # Four standard deviations of the mean of this many labels.
    assert results["metrics"]["test"]["calibration"] == pytest.approx(1, abs=0.06)
    assert results["dataset"]["negative_rate"] == RATE
    assert results["config"]["data"]["negative_rate"] == RATE
    predictor = Predictor(workdir)
    expected = pytest.approx(results["metrics"]["test"], rel=1e-5)
    assert evaluate_split(predictor, "test") == expected
    assert evaluate_file(predictor, clicks_files / "test.csv") == expected
    # The uncorrected probabilities of the model are far from true.
    (state,) = score_split(predictor, "test").states.values()
    uncorrected = 1 / (1 + np.exp(-(state.logits - np.log(RATE))))
    assert uncorrected.sum() / state.labels.sum() > 2


def test_what_predict_writes_is_corrected(sampled, clicks_files, tmp_path):
    _, workdir = sampled
    predict_file(Predictor(workdir), clicks_files / "test.csv", tmp_path / "scored.csv")
    rows = pa_csv.read_csv(tmp_path / "scored.csv")
    clicked, predicted = (rows[name].to_numpy().sum() for name in ("click", "probability"))
    assert predicted / clicked == pytest.approx(1, abs=0.06)


def best_weights(workdir):
    experiment, encoder = workdirs.read(workdir)
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    mesh = create_mesh(jax.devices()[:1])
    return jax.tree.map(
        np.asarray,
        restore_best(workdir, weights_layout(Network(model), placement_for(optimizer, mesh))),
    )


class Killed(BaseException):
    """As abrupt as a signal."""


@pytest.mark.parametrize("stop_at", [23, 31])
def test_killed_and_started_again_it_ends_bit_for_bit_the_same(
    sampled, clicks, tmp_path, monkeypatch, stop_at
):
    results, workdir = sampled
    make_train_step = trainer.make_train_step

    def killing(*arguments):
        step = make_train_step(*arguments)

        def killed(state, batch):
            if int(state.step) == stop_at:
                raise Killed
            return step(state, batch)

        return killed

    experiment = _sampled_experiment(clicks)
    monkeypatch.setattr(trainer, "make_train_step", killing)
    with pytest.raises(Killed):
        train(experiment, tmp_path)
    monkeypatch.setattr(trainer, "make_train_step", make_train_step)
    resumed = train(experiment, tmp_path)
    assert resumed["metrics"] == results["metrics"]
    chex.assert_trees_all_equal(best_weights(tmp_path), best_weights(workdir))


def test_an_epoch_is_as_long_as_its_sample(sampled, clicks):
    _, workdir = sampled
    summary = json.loads(next(clicks.rglob("rows_train.json")).read_text())
    negatives = summary["rows"] - summary["positives"]
    rows = summary["positives"] + round(RATE * negatives)
    steps = -(-rows // BATCH)
    with Checkpoints(workdir) as checkpoints:
        progress = checkpoints.progress(checkpoints.last_step)
    ends = [each["step"] for each in progress.evaluations]
    assert ends == [steps * (epoch + 1) for epoch in range(EPOCHS)]
    assert progress.examples == EPOCHS * (rows - BATCH)
