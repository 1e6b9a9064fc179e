"""Runs whose values start from pretrained vectors."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.distributed import hosts
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import restripe, stripes_of
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.schema import Categorical, History, Label, Numeric, Schema
from deepfm_jax.training import pretrained_vectors
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import restore_best
from deepfm_jax.training.loop import train
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.pretrained_vectors import (
    digest,
    read_first_vectors,
    reduced,
    scaled,
    with_first_vectors,
)
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import create_state, placement_for, weights_layout, weights_shapes

ITEMS, DIM = 600, 4
ROWS = {"train": 1200, "valid": 2000, "test": 400}


@pytest.fixture(scope="module")
def vectors():
    """Vectors of the items, which determine the clicks."""
    return np.random.default_rng(7).normal(size=(ITEMS, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory, vectors):
    """Prepared rows in which every item is rare, with about two rows in train."""
    rng = np.random.default_rng(8)
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "out"))
    taste = np.array([1.0, -1.0, 1.0, -1.0])
    for split, rows in ROWS.items():
        items = rng.integers(ITEMS, size=rows)
        chance = 1 / (1 + np.exp(-vectors[items] @ taste))
        table = {
            "user": [f"u{number}" for number in rng.integers(20, size=rows)],
            "item": [f"i{number}" for number in items],
            "seen": [[f"i{number}" for number in rng.integers(ITEMS, size=2)] for _ in items],
            "price": rng.random(rows),
            "click": (rng.random(rows) < chance).astype(int),
        }
        pq.write_table(pa.table(table), source / f"{split}.parquet")
    columns = (Categorical("user"), Categorical("item"), History("seen", shares_with="item"))
    schema = Schema((*columns, Numeric("price"), Label("click")))
    prepare("tabular", out, source=source, options=BuildOptions(schema=schema.to_dict()))
    return out


def written(path, vectors, skipped=()):
    """A file of the items' vectors, in random order, with an item that no row has."""
    order = [k for k in np.random.default_rng(0).permutation(len(vectors)) if k not in skipped]
    values = [*(f"i{k}" for k in order), "nobody"]
    rows = [*vectors[order], np.ones(vectors.shape[1], np.float32)]
    pq.write_table(pa.table({"item": values, "vector": rows}), path)
    return str(path)


def settings(data, vectors, model=None, **changes):
    config = {
        "data": {"name": "tabular", "folder": str(data), "options": {}},
        "model": {"name": "fm", "embed_dim": DIM, **(model or {})},
        "optimizer": {"learning_rate": 0.02, "table": "sparse"},
        "loop": {"batch_size": 240, "epochs": 2, "patience": 0, "eval_batch_size": 400},
        "seed": 1,
        "pretrained_vectors": {"item": vectors} if isinstance(vectors, str | dict) else {},
    }
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return Experiment.from_mapping(config)


def begun(experiment, devices, replicas=1):
    """Tables before the first step, in the order of their rows: with vectors, and at random."""
    data = PreparedData("tabular", experiment.data.folder)
    model = experiment.build_model(data.encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    mesh = create_mesh(jax.devices()[:devices], replicas=replicas)
    shapes = weights_shapes(Network(model)).params["table"]

    def in_order(state):
        return {
            name: np.asarray(
                restripe(
                    array, stripes_of(state.params["table"][name]), 1, shapes[name].shape[0]
                ).astype(np.float32)
            )
            for name, array in state.weights.params["table"].items()
        }

    fresh = in_order(create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh)))
    first = read_first_vectors(experiment.pretrained_vectors, model, data.encoder)
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    state = with_first_vectors(state, optimizer, first, mesh)
    assert int(state.step) == 0
    return in_order(state), fresh, state, data.encoder


def row_of(encoder, item):
    """Row of the table, or None; users come first."""
    place = encoder.coders[1].vocabulary.index(f"i{item}").as_py()
    return None if place < 0 else encoder.coders[0].dim + encoder.coders[1].first_id + place


@pytest.mark.parametrize(
    ("devices", "replicas", "model", "optimizer"),
    [
        (1, 1, {}, {}),
        (8, 1, {}, {"rows": {"name": "ftrl"}}),
        (6, 2, {"table_dtype": "bfloat16"}, {}),
        (8, 1, {}, {"table": "dense"}),
        (3, 1, {"name": "deepfm", "shared": False, "mlp_dims": [4]}, {}),
    ],
)
def test_each_row_is_the_files_or_the_initialisers(
    data, vectors, tmp_path, devices, replicas, model, optimizer
):
    skipped = {3, 5, 8}
    file = written(tmp_path / "v.parquet", vectors, skipped)
    experiment = settings(data, {"file": file, "scale": "as_is"}, model, optimizer=optimizer)
    found, fresh, state, encoder = begun(experiment, devices, replicas)
    expected = {name: array.copy() for name, array in fresh.items()}
    copies = fresh["embedding"].shape[1] // DIM
    for item, vector in enumerate(vectors):
        row = row_of(encoder, item)
        if row is not None and item not in skipped:
            dtype = state.weights.params["table"]["embedding"].dtype
            expected["embedding"][row] = np.tile(vector.astype(dtype).astype(np.float32), copies)
    chex.assert_trees_all_equal(found["embedding"], expected["embedding"])
    chex.assert_trees_all_equal(found["first_order"], expected["first_order"])
    assert (found["embedding"] != fresh["embedding"]).all(axis=1).sum() >= ITEMS - 10
    if optimizer.get("row_optimizer") == "ftrl":  # Its state contains the weights.
        z = np.asarray(state.row_state["embedding"]["z"])
        weights = np.asarray(state.weights.params["table"]["embedding"])
        chex.assert_trees_all_close(z, -weights / 0.02, rtol=1e-5, atol=0)


def test_a_run_on_one_device_and_on_eight_start_from_the_same(data, vectors, tmp_path):
    file = written(tmp_path / "v.parquet", np.tile(vectors, (1, 2)))  # Reduced by PCA.
    tables = [begun(settings(data, file), devices)[0] for devices in (1, 8)]
    for name, array in tables[0].items():
        chex.assert_trees_all_equal(array, tables[1][name])


@pytest.mark.parametrize(("scale", "size"), [("unit_length", DIM**-0.5), ("init_std", 0.03)])
def test_numbers_are_scaled_by_one_factor(data, vectors, tmp_path, scale, size):
    file = written(tmp_path / "v.parquet", 70 * vectors)
    experiment = settings(data, {"file": file, "scale": scale}, {"init_std": 0.03})
    found, _, _, encoder = begun(experiment, 1)
    rows = {item: row_of(encoder, item) for item in range(ITEMS)}
    there = np.array([vectors[item] for item, row in rows.items() if row is not None], np.float64)
    squares = [float(number) ** 2 for vector in there for number in vector]
    expected = there * size / np.sqrt(sum(squares) / len(squares))
    table = found["embedding"][[row for row in rows.values() if row is not None]]
    chex.assert_trees_all_close(table, expected, rtol=1e-5, atol=0)


def test_longer_vectors_are_reduced_to_their_principal_components():
    rng = np.random.default_rng(0)
    long = (rng.normal(size=(50, 3)) @ rng.normal(size=(3, 9)) + 5).astype(np.float32)
    long += 0.1 * rng.normal(size=long.shape).astype(np.float32)
    found, kept = reduced(long.copy(), 2)
    wanted = PCA(2, svd_solver="full").fit(long.astype(np.float64))
    chex.assert_trees_all_close(
        found, wanted.transform(long.astype(np.float64)), rtol=1e-7, atol=1e-4
    )
    assert kept == pytest.approx(wanted.explained_variance_ratio_.sum(), abs=1e-5)
    chex.assert_trees_all_equal(found, reduced(long.copy(), 2)[0])
    # Whatever the size of the numbers: powers of two round nothing.
    for exponent in (-100, 100):
        sized, share = reduced(np.ldexp(long, exponent), 2)
        chex.assert_trees_all_equal(sized, np.ldexp(found, exponent))
        assert share == kept
    # Three components hold nearly all the variance, so distances stay.
    three, kept = reduced(long.copy(), 3)
    assert kept > 0.98
    apart, before = (np.linalg.norm(each[:25] - each[25:], axis=1) for each in (three, long))
    chex.assert_trees_all_close(apart, before, rtol=0.1, atol=0)
    same, kept = reduced(long, 9)
    chex.assert_trees_all_equal(same, long)
    assert kept is None


def test_vectors_that_cannot_be_fitted_are_refused():
    ones = np.ones((3, 6), np.float32)
    with pytest.raises(
        UserError, match=r"have 6 numbers, but the model's have 8; set model\.embed_dim=6"
    ):
        reduced(ones, 8)
    with pytest.raises(UserError, match="all 3 vectors are identical"):
        reduced(0.3 * ones, 2)
    with pytest.raises(UserError, match="only 3 values have a vector, too few to reduce them from"):
        reduced(ones, 5)
    with pytest.raises(UserError, match="all numbers of the vectors are 0"):
        scaled(0 * ones, "unit_length", 0.1)


def test_what_was_done_is_reported(data, vectors, tmp_path, capsys):
    file = written(tmp_path / "v.parquet", np.tile(vectors, (1, 2)), skipped={0, 1, 2})
    *_, encoder = begun(settings(data, file), 1)
    known = len(encoder.coders[1].vocabulary)
    assert known > ITEMS - 5
    out = capsys.readouterr().out
    assert f"pretrained vectors: {known - 3:,} of {known:,} values of item have a vector; " in out
    assert f"; {1 + ITEMS - known} values of {file} are not in the vocabulary; " in out
    assert "8 numbers reduced to 4, which keep 100.0% of the variance; multiplied by 0.3" in out


def test_processes_compare_what_they_read_and_take_the_firsts_vectors(
    data, vectors, tmp_path, monkeypatch
):
    """The result of PCA depends on the processor."""
    experiment = settings(data, written(tmp_path / "v.parquet", np.tile(vectors, (1, 2))))
    prepared = PreparedData("tabular", data)
    model = experiment.build_model(prepared.encoder)
    read = functools.partial(read_first_vectors, model=model, encoder=prepared.encoder)
    assert digest(read(experiment.pretrained_vectors)) == ""  # One process has nothing to compare.
    with monkeypatch.context() as several:
        several.setattr(jax, "process_count", lambda: 2)
        first = read(experiment.pretrained_vectors)
        several.setattr(PCA, "fit_transform", lambda self, rows: -rows[:, :DIM])
        several.setattr(PCA, "explained_variance_ratio_", np.ones(1), raising=False)
        second = read(experiment.pretrained_vectors)
        other = settings(data, written(tmp_path / "w.parquet", np.tile(vectors + 1, (1, 2))))
        assert digest(first) == digest(second) != digest(read(other.pretrained_vectors))
    assert (first[0].vectors != second[0].vectors).any()
    monkeypatch.setattr(hosts, "from_primary", lambda rows: first[0].vectors)
    optimizer = create_for(experiment.optimizer, 1, model, 240)
    mesh = create_mesh(jax.devices()[:1])
    state = create_state(Network(model), optimizer, 1, placement_for(optimizer, mesh))
    state = with_first_vectors(state, optimizer, second, mesh)
    table = np.asarray(state.params["table"]["embedding"])
    chex.assert_trees_all_equal(table[first[0].rows], first[0].vectors)


def table_of(workdir):
    """Vectors of a run's best weights."""
    experiment, encoder = workdirs.read(workdir)
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, experiment.loop.batch_size)
    layout = weights_layout(
        Network(model), placement_for(optimizer, create_mesh(jax.devices()[:1]))
    )
    return np.asarray(restore_best(workdir, layout).params["table"]["embedding"])


def test_a_run_begins_with_them_and_goes_on_without_the_file(
    data, vectors, tmp_path, monkeypatch, capsys
):
    file = written(tmp_path / "v.parquet", vectors)
    # Too slow to move anything, so that the first weights remain visible.
    slow = {"learning_rate": 1e-12}
    experiment = settings(data, file, optimizer=slow, loop={"epochs": 1})
    train(experiment, tmp_path / "run")
    expected = begun(experiment, 1)[0]["embedding"]
    chex.assert_trees_all_close(table_of(tmp_path / "run"), expected, rtol=1e-7, atol=1e-7)
    (tmp_path / "v.parquet").unlink()
    monkeypatch.setattr(pretrained_vectors, "with_first_vectors", None)
    capsys.readouterr()
    train(settings(data, file, optimizer=slow), tmp_path / "run")
    assert "resuming at step 5" in capsys.readouterr().out
    chex.assert_trees_all_close(table_of(tmp_path / "run"), expected, rtol=1e-7, atol=1e-7)
    with pytest.raises(UserError, match=r"holds a run with pretrained_vectors\.item"):
        train(settings(data, None, optimizer=slow), tmp_path / "run")
    with pytest.raises(UserError, match=r"pretrained_vectors\.item: .*v\.parquet: no such file"):
        train(experiment, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_vectors_that_say_something_help_rare_values(data, vectors, tmp_path):
    model = {"name": "dnn", "mlp_dims": [16], "dropout": 0.0}
    file = written(tmp_path / "v.parquet", vectors)
    found = {
        key: train(
            settings(data, given, model, loop={"epochs": 5}, optimizer={"learning_rate": 0.01}),
            tmp_path / key,
        )["metrics"]["valid"]["auc"]
        for key, given in (("without", None), ("with", file))
    }
    assert found["with"] > found["without"] + 0.03


@pytest.mark.parametrize(
    ("columns", "model", "message"),
    [
        ({"item": "FILE"}, {"name": "lr", "embed_dim": None}, "model LR has no vectors"),
        ({"price": "FILE"}, {}, r"pretrained_vectors.price: column 'price' is a numeric column"),
        ({"item": "FILE", "seen": "FILE"}, {}, "'item' and 'seen' share a vocabulary"),
        ({"item": "FILE"}, {"embed_dim": 9}, r"pretrained_vectors.item: the vectors have 4 numb"),
    ],
)
def test_settings_that_do_not_go_with_the_data_are_reported(
    data, vectors, tmp_path, columns, model, message
):
    file = written(tmp_path / "v.parquet", vectors)
    experiment = settings(data, None, model)
    if model.get("name") == "lr":
        experiment = dataclasses.replace(experiment, model={"name": "lr"})
    given = dict.fromkeys(columns, file)
    config = {**experiment.to_dict(), "pretrained_vectors": given}
    with pytest.raises(UserError, match=message):
        train(Experiment.from_mapping(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vectors_that_are_not_tuned_stay_through_a_resumed_run(data, vectors, tmp_path, capsys):
    skipped = {3, 5, 8}
    file = written(tmp_path / "v.parquet", vectors, skipped)
    given = {"file": file, "scale": "as_is", "tuned": False}
    train(settings(data, given, loop={"epochs": 1}), tmp_path / "run")
    assert "are not in the vocabulary; frozen\n" in capsys.readouterr().out
    (tmp_path / "v.parquet").unlink()
    experiment = settings(data, given, loop={"epochs": 3})
    train(experiment, tmp_path / "run")
    assert "resuming at step 5" in capsys.readouterr().out
    table, (_, encoder) = table_of(tmp_path / "run"), workdirs.read(tmp_path / "run")
    model = experiment.build_model(encoder)
    optimizer = create_for(experiment.optimizer, 1, model, 240)
    alone = create_mesh(jax.devices()[:1])
    fresh = np.asarray(
        create_state(Network(model), optimizer, 1, placement_for(optimizer, alone)).params["table"][
            "embedding"
        ]
    )
    rows = {item: row_of(encoder, item) for item in range(ITEMS)}
    known = [item for item in rows if rows[item] is not None and item not in skipped]
    chex.assert_trees_all_equal(table[[rows[item] for item in known]], vectors[known])
    others = [row for item, row in rows.items() if item in skipped and row is not None]
    assert (table[others] != fresh[others]).any(axis=1).all()
