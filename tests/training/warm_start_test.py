"""A run that starts from the weights of another, on rows with values new to the other."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import restripe, stripes_of
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints, Progress, frozen_arrays, restore_best
from deepfm_jax.training.loop import train
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.pretrained_vectors import FirstVectors, with_first_vectors
from deepfm_jax.training.state import create_state, placement_for, weights_layout, weights_shapes
from deepfm_jax.training.step import make_score_step
from deepfm_jax.training.warm_start import earlier_model, with_warm_start
from tests import click_logs, experiment_settings
from tests.encoders import field_rows

ROWS = {"train": 1200, "valid": 200, "test": 200}
MODELS = {
    "deepfm": {"name": "deepfm", "embed_dim": 4, "mlp_dims": [8], "batch_norm": True},
    "bfloat16": {"name": "deepfm", "embed_dim": 4, "mlp_dims": [8], "table_dtype": "bfloat16"},
    # Crosses come last and have no vectors.
    "wide_deep": {"name": "wide_deep", "embed_dim": 4, "mlp_dims": [8]},
}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two prepared days, the second extending the ids of the first, and the raw rows of both."""
    sources, outs = [], []
    for day in range(2):
        source = tmp_path_factory.mktemp(f"source{day}")
        click_logs.write_frappe(source, ROWS, seed=day)
        path = source / "train.csv"
        header, *lines = path.read_text().splitlines()
        if day:  # New values of the fields at both ends and in the middle.
            for row in range(0, 300, 3):
                cells = lines[row].split(",")
                for field in (1, 5, 10):
                    cells[field] = str(100 + row % 7)
                lines[row] = ",".join(cells)
        path.write_text("\n".join([header, *lines]) + "\n")
        crosses = {"crosses": [["user", "item"]], "cross_buckets": 50}
        if day:
            crosses["extend_from"] = str(dataset_folder("frappe", outs[0]))
        outs.append(tmp_path_factory.mktemp(f"out{day}"))
        prepare("frappe", outs[day], source=source, options=BuildOptions(**crosses))
        sources.append(source)
    return sources, outs


def settings(folder, model="deepfm", **changes):
    return experiment_settings.small(
        folder,
        **{
            "model": MODELS[model] if isinstance(model, str) else model,
            "optimizer": {"learning_rate": 0.02, "table": "sparse"},
            "loop": {"batch_size": 240, "epochs": 1, "eval_batch_size": 240},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def run_of(days, tmp_path_factory):
    """Trains one of ``MODELS`` on the first day, once, and returns the workdir."""

    @functools.cache
    def trained(model):
        workdir = tmp_path_factory.mktemp("earlier") / "run"
        train(settings(days[1][0], model), workdir)
        return workdir

    return trained


@pytest.fixture
def run(run_of):
    return run_of("deepfm")


def begun(experiment, devices, workdir):
    """A warm-started state on some devices, a fresh one, and the scoring step."""
    data = PreparedData("frappe", experiment.data.folder)
    model = experiment.build_model(data.encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    mesh = create_mesh(jax.devices()[:devices])
    before = earlier_model(workdir, experiment.model["name"], model, data.encoder)
    weights = restore_best(workdir, weights_layout(Network(before), placement_for(optimizer, mesh)))
    fresh = jax.tree.map(
        np.asarray, create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    )
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    state = with_warm_start(state, optimizer, model, before, weights, mesh)
    return (
        state,
        fresh,
        make_score_step(Network(model), placement_for(optimizer, mesh)),
        data.encoder,
    )


def scores_before(workdir, path, devices):
    """Logits of the earlier model."""
    experiment, encoder = workdirs.read(workdir)
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    mesh = create_mesh(jax.devices()[:devices])
    weights = restore_best(workdir, weights_layout(Network(model), placement_for(optimizer, mesh)))
    ids = encoder.encode(next(read_tables(path, encoder.schema))).ids[:160]
    return np.asarray(
        make_score_step(Network(model), placement_for(optimizer, mesh))(weights, {"ids": ids})
    )


def check_scores(days, model, workdir, devices, table):
    """Whether rows of the first day get the same logits as from the earlier model."""
    sources, outs = days
    experiment = settings(outs[1], model, optimizer={"learning_rate": 0.02, "table": table})
    state, _, score, encoder = begun(experiment, devices, workdir)
    path = sources[0] / "valid.csv"
    ids = encoder.encode(next(read_tables(path, encoder.schema))).ids[:160]
    found = np.asarray(score(state.weights, {"ids": ids}))
    assert found.std() > 0.05
    chex.assert_trees_all_close(found, scores_before(workdir, path, devices), rtol=1e-5, atol=1e-6)
    assert int(state.step) == 0


@pytest.mark.parametrize(
    ("model", "devices"), [("deepfm", 1), ("deepfm", 8), ("bfloat16", 8), ("wide_deep", 8)]
)
def test_rows_of_old_values_are_scored_as_before(days, run_of, model, devices):
    check_scores(days, model, run_of(model), devices, "sparse")


def test_a_table_that_moves_densely_starts_warm_too(days, run):
    check_scores(days, "deepfm", run, 8, "dense")


@pytest.mark.parametrize(
    ("model", "devices", "rows"),
    [("deepfm", 3, "adam"), ("bfloat16", 1, "adam"), ("wide_deep", 8, "ftrl")],
)
def test_each_row_is_the_earlier_one_or_the_initialisers(days, run_of, model, devices, rows):
    workdir = run_of(model)
    optimizer = {"learning_rate": 0.02, "table": "sparse", "rows": {"name": rows}}
    experiment = settings(days[1][1], model, optimizer=optimizer)
    state, fresh, _, encoder = begun(experiment, devices, workdir)
    run, before = workdirs.read(workdir)
    smaller, larger = run.build_model(before), experiment.build_model(encoder)
    alone = create_mesh(jax.devices()[:1])
    how = create_for(run.optimizer, 1, smaller, 240)
    old = restore_best(workdir, weights_layout(Network(smaller), placement_for(how, alone)))

    def in_order(table, like):
        return {
            name: np.asarray(
                restripe(array, stripes_of(state.params["table"][name]), 1, len(like[name]))
            )
            for name, array in table.items()
        }

    shapes = weights_shapes(Network(larger)).params["table"]
    found = in_order(state.weights.params["table"], shapes)
    first = in_order(fresh.weights.params["table"], shapes)
    new_ids = 0
    for name, array in found.items():
        start = new_start = 0
        for dim, grown in zip(field_rows(before), field_rows(encoder), strict=True):
            if new_start >= len(array):
                break
            end = new_start + dim
            there = np.asarray(old.params["table"][name])[start : start + dim]
            chex.assert_trees_all_equal(array[new_start:end], there)
            added = slice(end, new_start + grown)
            chex.assert_trees_all_equal(array[added], first[name][added])
            new_ids += grown - dim
            start, new_start = start + dim, new_start + grown
    # In three fields, for first-order weights and vectors.
    assert new_ids == 2 * 3 * 7
    assert np.abs(found["embedding"].astype(np.float32)).max() > 0
    for name in set(old.params) - {"table"}:
        chex.assert_trees_all_equal(
            jax.tree.map(np.asarray, state.params[name]),
            jax.tree.map(np.asarray, old.params[name]),
        )
    chex.assert_trees_all_equal(
        jax.tree.map(np.asarray, state.batch_stats), jax.tree.map(np.asarray, old.batch_stats)
    )
    if rows == "adam":  # The optimizers start anew.
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, state.row_state), fresh.row_state)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, state.opt_state), fresh.opt_state)


def weights_of(workdir):
    """Best weights of a run, on one device."""
    experiment, encoder = workdirs.read(workdir)
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    alone = create_mesh(jax.devices()[:1])
    return restore_best(workdir, weights_layout(Network(model), placement_for(optimizer, alone)))


def test_a_run_goes_on_from_another(days, run, tmp_path, capsys):
    still = settings(
        days[1][1],
        # Too slow to move anything, so that the first weights remain visible.
        optimizer={"learning_rate": 1e-12, "table": "sparse"},
        warm_start=str(run),
    )
    capsys.readouterr()
    results = train(still, tmp_path / "run")
    assert "from warm start: 261 of 282 table rows and all other" in capsys.readouterr().out
    found, before = weights_of(tmp_path / "run").params, weights_of(run).params
    for name in set(before) - {"table"}:
        chex.assert_trees_all_close(found[name], before[name], atol=1e-6)
    chex.assert_trees_all_close(
        found["table"]["embedding"][:21], before["table"]["embedding"][:21], rtol=1e-7, atol=1e-6
    )
    # Started again, it no longer needs the other run, and does not start from it again.
    run.rename(run.with_name("gone"))
    try:
        again = train(still, tmp_path / "run")
    finally:
        run.with_name("gone").rename(run)
    assert again["metrics"] == results["metrics"]
    with pytest.raises(UserError, match="holds a run with warm_start="):
        train(dataclasses.replace(still, warm_start=None), tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "fm", "embed_dim": 4}, "is a run of model 'deepfm', but this one is of 'fm'"),
        (
            {**MODELS["deepfm"], "embed_dim": 8},
            r"has model.embed_dim=4, but this run has model.embed_dim=8",
        ),
        (
            {**MODELS["deepfm"], "mlp_dims": [8, 8]},
            r"has model.mlp_dims=\[8\], but this run has model.mlp_dims=\[8, 8\]",
        ),
        ({**MODELS["deepfm"], "batch_norm": False}, "model.batch_norm=True"),
        ({**MODELS["deepfm"], "table_dtype": "bfloat16"}, "model.table_dtype='float32'"),
    ],
)
def test_another_model_is_refused(days, run, tmp_path, model, message):
    with pytest.raises(UserError, match=message):
        train(settings(days[1][1], model=model, warm_start=str(run)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_change_the_meaning_of_weights_may_differ(days, run, tmp_path):
    model = {**MODELS["deepfm"], "dropout": 0.4, "init_std": 0.3}
    results = train(settings(days[1][1], model=model, warm_start=str(run)), tmp_path / "run")
    assert results["config"]["warm_start"] == str(run)


def test_an_encoder_that_was_not_extended_is_refused(days, run, tmp_path):
    sources, outs = days
    crosses = {"crosses": [["user", "item"]], "cross_buckets": 50}
    for name, options in (("anew", crosses), ("otherwise", {**crosses, "min_count": 40})):
        prepare("frappe", tmp_path / name, source=sources[1], options=BuildOptions(**options))
    with pytest.raises(UserError, match=r"warm_start=.*: column '\w+': id \d+ means .*extend_from"):
        train(settings(tmp_path / "anew", warm_start=str(run)), tmp_path / "run")
    with pytest.raises(
        UserError, match=r"warm_start=.*another schema: column 'user' has min_count"
    ):
        train(settings(tmp_path / "otherwise", warm_start=str(run)), tmp_path / "run")
    for folder, message in (
        (tmp_path / "none", "holds no run"),
        (tmp_path / "bare", "has no checkpoint yet; train it first"),
    ):
        if folder.name == "bare":
            encoder = Encoder.load(dataset_folder("frappe", outs[0]))
            workdirs.claim(folder, settings(outs[0]), encoder)
        with pytest.raises(UserError, match=message):
            train(settings(outs[1], warm_start=str(folder)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def frozen_run(days, tmp_path):
    """The workdir of a run on the first day with frozen rows; their values by field, vectors."""
    vectors = {"item": {"file": "vectors.parquet", "tuned": False}}
    experiment = settings(days[1][0], pretrained_vectors=vectors)
    encoder = Encoder.load(dataset_folder("frappe", days[1][0]))
    model, mesh = experiment.build_model(encoder), create_mesh()
    optimizer = create_for(experiment.optimizer, 1, model, 240)
    optimizer = dataclasses.replace(optimizer, has_frozen_rows=True)
    # Ids of the second field, which new values on the second day move.
    ids = np.array([2, 3, 5, 11])
    values = np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32)
    rows = field_rows(encoder)[0] + ids
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    first = [FirstVectors(rows, values, True, "")]
    state = with_first_vectors(state, optimizer, first, mesh)
    workdirs.claim(tmp_path / "earlier", experiment, encoder)
    with Checkpoints(tmp_path / "earlier") as checkpoints:
        checkpoints.save(state, Progress(best_step=0))
    return tmp_path / "earlier", ids, values


@pytest.mark.parametrize("table", ["sparse", "dense"])
def test_frozen_rows_stay_frozen_also_when_resumed(days, frozen_run, tmp_path, capsys, table):
    earlier, ids, values = frozen_run
    optimizer = {"learning_rate": 0.02, "table": table}
    warm = settings(days[1][1], optimizer=optimizer, warm_start=str(earlier))
    capsys.readouterr()
    train(warm, tmp_path / "run")
    assert "all other weights; 4 rows stay frozen\n" in capsys.readouterr().out
    before = weights_of(earlier).params["table"]["embedding"]
    earlier.rename(tmp_path / "gone")
    loop = dataclasses.replace(warm.loop, epochs=2)
    train(dataclasses.replace(warm, loop=loop), tmp_path / "run")
    assert frozen_arrays(tmp_path / "run") == ("embedding",)
    encoder = workdirs.read(tmp_path / "run")[1]
    found = np.asarray(weights_of(tmp_path / "run").params["table"]["embedding"])
    rows = field_rows(encoder)[0] + ids
    chex.assert_trees_all_equal(found[rows], values)
    assert (found[rows + 2] != np.asarray(before)[rows + 2]).all()


def test_two_sources_of_first_weights_are_one_too_many(days):
    stage = {"model": {"name": "fm", "embed_dim": 4}}
    with pytest.raises(UserError, match="pretraining and warm_start both set the first weights"):
        settings(days[1][1], warm_start="runs/a", pretraining=stage)
