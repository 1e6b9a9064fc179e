import json
import pathlib

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.models import build_model
from deepfm_jax.training import trainer
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints
from deepfm_jax.training.loop import train
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.pretraining import shared_parameters
from deepfm_jax.training.state import create_state, placement_for, weights_shapes
from tests import click_logs, experiment_settings

# Of runs that are not started again: those of evaluations are enough.
FEW_CHECKPOINTS = {"checkpoint_steps": 1000}


class Killed(BaseException):
    """As abrupt as a signal: nothing in the loop may catch it."""


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """A finished run: its results and workdir."""
    workdir = tmp_path_factory.mktemp("run")
    return train(experiment_settings.small(prepared), workdir), workdir


def restored(workdir, best=True):
    """The best or the last state of a run on one device, as NumPy, with rows in their order."""
    experiment, encoder = workdirs.read(workdir)
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    with Checkpoints(workdir) as checkpoints:
        last = checkpoints.last_step
        step = checkpoints.progress(last).best_step if best else last
        alone = create_mesh(jax.devices()[:1])
        state = checkpoints.restore(
            step, like=create_state(Network(model), optimizer, 0, placement_for(optimizer, alone))
        )
    return jax.tree.map(np.asarray, state.replace(scratch=()))


def test_it_learns(run):
    results, _ = run
    assert results["metrics"]["test"]["auc"] > 0.7
    assert results["metrics"]["test"]["normalized_entropy"] < 0.95
    assert results["metrics"]["test"]["rows"] == click_logs.ROWS["test"]


@pytest.mark.parametrize("sparse", [{}, {"table": "sparse", "first_order": {"name": "ftrl"}}])
def test_fnn_starts_from_the_fm_that_was_trained_before_it(prepared, tmp_path, sparse):
    stage = {"model": {"name": "fm", "embed_dim": 4}, "optimizer": {"learning_rate": 0.02}}
    experiment = experiment_settings.small(
        prepared,
        model={"name": "fnn", "embed_dim": 4, "mlp_dims": [8], "dropout": 0.0},
        # Too slow to move anything, so that the first weights remain visible.
        optimizer={"learning_rate": 1e-12, **sparse},
        loop={"epochs": 1},
        pretraining={**stage, "loop": {"batch_size": 512, "epochs": 2}},
    )
    train(experiment, tmp_path / "run")
    fm = restored(tmp_path / "run" / "pretraining")
    assert workdirs.read(tmp_path / "run" / "pretraining")[0] == experiment.first_stage
    fnn = restored(tmp_path / "run")
    for array in ("first_order", "embedding"):
        moved = np.abs(fm.params["table"][array]).max()
        assert moved > 0.05
        chex.assert_trees_all_close(
            fnn.params["table"][array], fm.params["table"][array], rtol=1e-7, atol=1e-6 * moved
        )
    assert fnn.params["bias"] == pytest.approx(float(fm.params["bias"]), abs=1e-6)
    # Started again, the run trains neither stage again.
    before = (tmp_path / "run" / "pretraining" / "results.json").read_text()
    train(experiment, tmp_path / "run")
    after = json.loads((tmp_path / "run" / "pretraining" / "results.json").read_text())
    assert after["metrics"] == json.loads(before)["metrics"]


@pytest.mark.parametrize(
    ("model", "first", "message"),
    [
        ({"name": "dnn", "embed_dim": 3, "mlp_dims": [8]}, {"name": "lr"}, "share no parameter"),
        (
            {"name": "fnn", "embed_dim": 3, "mlp_dims": [8]},
            {"name": "fm", "embed_dim": 4},
            r"table\.embedding is \[210, 3\] in the model and \[210, 4\] in the pretraining stage; "
            r"set model\.embed_dim and pretraining\.model\.embed_dim so that they agree",
        ),
    ],
)
def test_a_pretraining_stage_whose_weights_do_not_fit_is_refused(
    prepared, tmp_path, model, first, message
):
    pretraining = {"model": first, "loop": {"epochs": 1}}
    experiment = experiment_settings.small(prepared, model=model, pretraining=pretraining)
    with pytest.raises(UserError, match=f"pretraining: .*{message}"):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_towers_of_other_widths_start_anew():
    deepfm, dnn = (
        weights_shapes(Network(build_model(name, (4, 3), {"embed_dim": 2, "mlp_dims": widths})))
        for name, widths in (("deepfm", (8, 4)), ("dnn", (6,)))
    )
    shared = {jax.tree_util.keystr(path) for path in shared_parameters(deepfm, dnn)}
    assert shared == {"['table']['embedding']", "['tower']['out']['bias']"}


def test_a_mistake_in_the_pretraining_stage_leaves_nothing(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared, pretraining={"model": {"name": "fm", "embed_dims": 4}}
    )
    with pytest.raises(UserError, match=r"model.embed_dims: fm has no such"):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"config\.pretraining\.loop has no option 'epoch'"):
        experiment_settings.small(
            prepared, pretraining={"model": {"name": "fm"}, "loop": {"epoch": 1}}
        )


def test_it_leaves_results_pictures_logs_and_checkpoints(run):
    results, workdir = run
    assert json.loads((workdir / "results.json").read_text()) == results
    for key in ("config", "dataset", "metrics", "throughput", "parameters", "versions"):
        assert results[key]
    assert results["parameters"] == 210 * 5 + 1 + (40 * 16 + 16) + (16 * 8 + 8) + 9
    assert results["throughput"]["train_examples_per_second"] > 0
    for name in ("training.png", "calibration.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    assert list((workdir / "tensorboard").glob("events.*"))
    assert not list(workdir.glob(".*.tmp"))


def test_every_row_of_every_epoch_is_trained_on(run):
    _, workdir = run
    with Checkpoints(workdir) as checkpoints:
        progress = checkpoints.progress(checkpoints.last_step)
    assert progress.epoch == 2
    steps = -(-click_logs.ROWS["train"] // 512)
    assert [evaluation["step"] for evaluation in progress.evaluations] == [steps, 2 * steps]
    assert progress.train_losses[-1][0] == 2 * steps
    # The time of the first step is not counted, because it compiles.
    assert progress.examples == 2 * click_logs.ROWS["train"] - 2 * 512


# Before the first checkpoint, between epochs, and within the second, two steps after a checkpoint.
@pytest.mark.parametrize("stop_at", [3, 20, 29])
def test_killed_and_started_again_it_ends_bit_for_bit_the_same(
    run, prepared, tmp_path, monkeypatch, stop_at
):
    results, workdir = run
    make_train_step = trainer.make_train_step

    def killing(*arguments):
        step = make_train_step(*arguments)

        def killed(state, batch):
            if int(state.step) == stop_at:
                raise Killed
            return step(state, batch)

        return killed

    experiment = experiment_settings.small(prepared)
    monkeypatch.setattr(trainer, "make_train_step", killing)
    with pytest.raises(Killed):
        train(experiment, tmp_path)
    monkeypatch.setattr(trainer, "make_train_step", make_train_step)
    resumed = train(experiment, tmp_path)
    assert resumed["metrics"] == results["metrics"]
    chex.assert_trees_all_equal(restored(tmp_path), restored(workdir))


def test_started_again_after_its_end_it_only_reports(run, prepared):
    results, workdir = run
    again = train(experiment_settings.small(prepared), workdir)
    assert again["metrics"] == results["metrics"]
    assert again["best_step"] == results["best_step"]


def test_more_epochs_go_on_from_the_end(run, prepared, tmp_path):
    first = experiment_settings.small(prepared, loop={"epochs": 1})
    train(first, tmp_path)
    results = train(experiment_settings.small(prepared), tmp_path)
    assert results["metrics"] == run[0]["metrics"]


def test_patience_ends_the_run_and_the_best_weights_are_kept(prepared, tmp_path):
    # A rate so high that validation AUC falls after the first evaluations.
    experiment = experiment_settings.small(
        prepared,
        optimizer={"learning_rate": 0.05},
        loop={"epochs": 30, "patience": 2, "evaluations_per_epoch": 2, **FEW_CHECKPOINTS},
    )
    results = train(experiment, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        progress = checkpoints.progress(checkpoints.last_step)
        last = checkpoints.last_step
    aucs = [evaluation["auc"] for evaluation in progress.evaluations]
    assert len(aucs) < 60
    assert int(np.argmax(aucs)) == len(aucs) - 3
    assert results["best_step"] == progress.evaluations[-3]["step"] < last
    assert results["metrics"]["valid"]["auc"] == pytest.approx(max(aucs), abs=1e-12)


def test_a_plateau_cuts_the_rate(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared,
        optimizer={"learning_rate": 0.05, "schedule": "plateau", "plateau_floor": 1e-3},
        loop={"epochs": 30, "patience": 3, "evaluations_per_epoch": 2, **FEW_CHECKPOINTS},
    )
    train(experiment, tmp_path)
    assert restored(tmp_path, best=False).rate_scale == pytest.approx(1e-3 / 0.05)


@pytest.mark.parametrize(("waits", "cuts"), [(0, 4), (1, 2), (3, 1)])
def test_a_plateau_waits_before_each_cut(prepared, tmp_path, waits, cuts):
    experiment = experiment_settings.small(
        prepared,
        optimizer={"schedule": "plateau", "plateau_patience": waits, "plateau_floor": 0.0},
        # After the first of five evaluations, none is better.
        loop={"epochs": 1, "evaluations_per_epoch": 5, "patience": 4, "min_improvement": 0.9},
    )
    train(experiment, tmp_path)
    assert restored(tmp_path, best=False).rate_scale == pytest.approx(0.1**cuts)


def test_the_monitor_chooses_the_best_weights(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared,
        optimizer={"learning_rate": 0.05},
        loop={"epochs": 4, "monitor": "logloss", "evaluations_per_epoch": 2, **FEW_CHECKPOINTS},
    )
    results = train(experiment, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        evaluations = checkpoints.progress(checkpoints.last_step).evaluations
    best = min(evaluations, key=lambda evaluation: evaluation["logloss"])
    assert results["best_step"] == best["step"]


def test_the_best_weights_outlive_scores_that_are_hardly_better(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared, loop={"epochs": 2, "min_improvement": 0.5, **FEW_CHECKPOINTS}
    )
    results = train(experiment, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        evaluations = checkpoints.progress(checkpoints.last_step).evaluations
    assert results["best_step"] == evaluations[0]["step"]
    assert evaluations[-1]["auc"] > evaluations[0]["auc"]
    assert results["metrics"]["valid"]["auc"] == pytest.approx(evaluations[0]["auc"], abs=1e-12)


def test_batch_norm_and_l2_train_too(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared,
        model={"name": "deepfm", "embed_dim": 4, "mlp_dims": [16], "batch_norm": True},
        optimizer={"clip_norm": 10.0, "l2": {"table": 1e-3, "tower": 1e-4, "interaction": 1e-4}},
        loop={"epochs": 1},
    )
    results = train(experiment, tmp_path)
    assert results["metrics"]["test"]["auc"] > 0.6


def test_a_loss_that_is_not_finite_stops_with_advice(prepared, tmp_path):
    experiment = experiment_settings.small(
        prepared, optimizer={"name": "sgd", "learning_rate": 1e30}
    )
    with pytest.raises(
        UserError, match=r"loss is (nan|inf) at step \d+; lower optimizer.learning_rate"
    ):
        train(experiment, tmp_path)


def test_what_is_wrong_is_reported_before_the_workdir_is_touched(prepared, tmp_path):
    workdir = tmp_path / "run"
    for changes, message in (
        ({"model": {"name": "deepfm", "embed_dims": 4}}, "did you mean 'embed_dim'"),
        ({"loop": {"batch_size": 9}}, "multiple of 8"),
        ({"data": {"folder": str(tmp_path)}}, "is not prepared"),
    ):
        with pytest.raises(UserError, match=message):
            train(experiment_settings.small(prepared, **changes), workdir)
        assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "fm", "embed_dim": 4}}, r"model.dropout=0.1|model.name='deepfm'"),
        ({"seed": 2}, "seed=1, but this one has seed=2"),
        ({"loop": {"batch_size": 256}}, "loop.batch_size=512, but this one has"),
        ({"loop": {"monitor": "logloss"}}, "loop.monitor='auc', but this one has"),
        ({"optimizer": {"clip_norm": 1.0}}, "optimizer.clip_norm=0.0, but this one has"),
    ],
)
def test_a_workdir_of_another_run_is_refused(run, prepared, changes, message):
    _, workdir = run
    with pytest.raises(UserError, match=message):
        train(experiment_settings.small(prepared, **changes), workdir)


def test_a_workdir_of_other_rows_is_refused(run, tmp_path):
    from deepfm_jax.datasets.prepare import prepare

    _, workdir = run
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    click_logs.write_frappe(source, seed=9)
    prepare("frappe", out, source=source)
    config = json.loads((workdir / "config.json").read_text())
    experiment = experiment_settings.small(config["data"]["folder"])
    data = PreparedData("frappe", out)
    from deepfm_jax.training import workdir as workdirs

    with pytest.raises(UserError, match="encoded differently"):
        workdirs.claim(workdir, experiment, data.encoder)


@pytest.mark.parametrize("url", ["gs://bucket/run", pathlib.Path("gs://bucket/run")])
def test_a_url_is_no_workdir(prepared, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a URL; give a folder"):
        train(experiment_settings.small(prepared), url)
    assert not list(tmp_path.iterdir())


def test_checkpoints_without_a_config_are_left_alone(run, prepared, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="checkpoints of an unknown run"):
        train(experiment_settings.small(prepared), tmp_path)
