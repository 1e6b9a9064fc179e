"""The sparse path of the train step equals the dense one where the mathematics agree."""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError, build_model
from deepfm_jax.dataclass_data import from_data
from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import ROW_OPTIMIZERS, tables
from deepfm_jax.features import as_features
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_for, create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties, RowSettings
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_train_step
from deepfm_jax.training.table_path import DENSE_ROWS_PER_READ, table_path
from tests.small_models import EVERY_KIND_OF_ARRAY, ONE_OF_EACH_KIND_OF_TABLE, small_model

DIMS = (30, 20)
MODEL = build_model("lr", DIMS, {})
# What becomes of rows depends on a model only through the arrays that its table has.
every_kind_of_table = pytest.mark.parametrize("name", ONE_OF_EACH_KIND_OF_TABLE)


def batch_of(seed, rows=24, spread=1.0, dims=DIMS):
    """Values around 1 and some zeros, repeated ids, padding at the end."""
    rng = np.random.default_rng(seed)
    tops = [max(1, int(dim * spread)) for dim in dims]
    values = rng.normal(1, 0.5, (rows, len(dims))) * (rng.random((rows, len(dims))) > 0.1)
    return {
        "ids": np.stack([rng.integers(0, top, rows) for top in tops], axis=1).astype(np.int32),
        "values": values.astype(np.float32),
        "labels": rng.integers(0, 2, (rows, 1)).astype(np.float32),
        "mask": (np.arange(rows) < rows - 3).astype(np.float32),
    }


@functools.cache
def compiled(settings, path, steps, name, **changes):
    """The first state as NumPy, and the step, which is compiled once per batch size."""
    mesh = create_mesh(jax.devices()[:1])
    model = small_model(name, DIMS, **changes)
    optimizer = create_optimizer(settings, steps, path)
    state = jax.tree.map(
        np.array, create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    )
    return state, make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))


def run(settings, path, steps=20, name="deepfm", spread=1.0, batches=None, **changes):
    """States before and after some steps on one device, as NumPy, and the losses."""
    before, step = compiled(settings, path, steps, name, **changes)
    state = jax.device_put(before, jax.devices()[0])
    losses = []
    for index in range(steps):
        batch = batches[index] if batches else batch_of(index, spread=spread)
        state, metrics = step(state, jax.device_put(batch))
        losses.append(float(metrics["loss"]))
    return before, jax.tree.map(np.array, state), losses


@pytest.mark.parametrize(
    ("name", "optimizer", "clip_norm"),
    [
        *((name, "adagrad", 0.05) for name in ONE_OF_EACH_KIND_OF_TABLE),
        ("deepfm", "sgd", 0.0),
        ("fm", "sgd", 0.05),
    ],
)
def test_a_hundred_sparse_steps_equal_dense_ones(name, optimizer, clip_norm):
    settings = OptimizerSettings(optimizer, learning_rate=0.05, clip_norm=clip_norm)
    _, dense, losses = run(settings, "dense", 100, name)
    _, sparse, same = run(settings, "sparse", 100, name)
    chex.assert_trees_all_close(losses, same, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_close(dense.params, sparse.params, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), rows=st.sampled_from([4, 17, 60]), spread=st.floats(0.05, 1.0))
def test_one_sparse_step_equals_a_dense_one_whatever_repeats(seed, rows, spread):
    batch = [batch_of(seed, rows, spread)]
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    _, dense, _ = run(settings, "dense", 1, batches=batch)
    _, sparse, _ = run(settings, "sparse", 1, batches=batch)
    chex.assert_trees_all_close(dense.params, sparse.params, atol=1e-6)


@every_kind_of_table
def test_rows_outside_the_batches_keep_every_bit(name):
    settings = OptimizerSettings("adam", learning_rate=0.05, clip_norm=1.0, l2=Penalties(table=0.1))
    before, after, _ = run(settings, "sparse", name=name, spread=0.4)
    untouched = np.r_[12:30, 38:50]
    for array in before.params["table"]:
        old, new = before.params["table"][array], after.params["table"][array]
        kept = untouched[untouched < len(old)]  # crosses have no vectors
        assert old[kept].tobytes() == new[kept].tobytes()
        assert (old[:12] != new[:12]).all()


def test_a_penalty_on_the_sparse_path_is_one_on_touched_rows():
    settings = OptimizerSettings(
        "sgd", learning_rate=0.5, l2=Penalties(table=0.3), l1=Penalties(table=0.02)
    )
    plain = OptimizerSettings("sgd", learning_rate=0.5)
    batch = [batch_of(0, spread=0.5)]
    before, with_penalty, _ = run(settings, "sparse", 1, batches=batch)
    _, without, _ = run(plain, "sparse", 1, batches=batch)
    touched = np.zeros(50, bool)
    touched[batch[0]["ids"] + np.array([0, 30])] = True
    w = before.params["table"]["embedding"].astype(np.float64)
    expected = np.where(touched[:, None], -0.5 * (0.3 * w + 0.02 * np.sign(w)), 0.0)
    moved = with_penalty.params["table"]["embedding"] - without.params["table"]["embedding"]
    chex.assert_trees_all_close(moved, expected, rtol=1e-7, atol=1e-6)


def test_the_norm_that_is_clipped_counts_each_touched_row_once():
    settings = OptimizerSettings("sgd", learning_rate=1.0, clip_norm=0.01, l2=Penalties(table=5.0))
    before, after, _ = run(settings, "sparse", 1)
    moved = jax.tree.map(lambda a, b: a - b, after.params, before.params)
    norm = np.sqrt(sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(moved)))
    assert norm == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        *((optimizer, EVERY_KIND_OF_ARRAY) for optimizer in ROW_OPTIMIZERS),
        *(("rowwise_adagrad", name) for name in ONE_OF_EACH_KIND_OF_TABLE[:-1]),
    ],
)
def test_every_row_optimizer_and_every_kind_of_table_train(optimizer, name):
    settings = OptimizerSettings("adam", learning_rate=0.05, rows=RowSettings(name=optimizer))
    batch = [batch_of(0)] * 30
    _, _, losses = run(settings, "sparse", 30, name, batches=batch)
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_first_order_weights_may_have_a_penalty_of_their_own(path):
    # All rows are read, so both paths decay all; two steps, as first-order weights start at 0.
    ids = np.stack([np.arange(30), np.arange(30) % 20], axis=1).astype(np.int32)
    batches = [{**batch_of(0, rows=30), "ids": ids}] * 2
    shared = OptimizerSettings("sgd", learning_rate=0.5, l2=Penalties(table=0.3))
    own = dataclasses.replace(shared, l2=Penalties(table=0.3, first_order=0.7))
    first = run(shared, path, 1, batches=batches)[1].params["table"]
    second = run(shared, path, 2, batches=batches)[1].params["table"]
    with_own = run(own, path, 2, batches=batches)[1].params["table"]
    expected = second["first_order"] - 0.5 * (0.7 - 0.3) * first["first_order"]
    chex.assert_trees_all_close(with_own["first_order"], expected, rtol=1e-7, atol=1e-6)
    chex.assert_trees_all_close(with_own["embedding"], second["embedding"], rtol=1e-7, atol=1e-6)


def test_first_order_weights_may_have_a_rate_of_their_own():
    batch = [batch_of(0)]
    shared = OptimizerSettings("sgd", learning_rate=0.1)
    faster = dataclasses.replace(shared, first_order=RowSettings(learning_rate=0.3))
    one = run(shared, "sparse", 1, batches=batch)[1].params["table"]
    three = run(faster, "sparse", 1, batches=batch)[1].params["table"]
    chex.assert_trees_all_close(three["first_order"], 3 * one["first_order"], rtol=1e-5, atol=1e-8)
    chex.assert_trees_all_equal(three["embedding"], one["embedding"])


def test_first_order_weights_may_have_an_optimizer_of_their_own():
    settings = OptimizerSettings(
        "adam",
        learning_rate=0.1,
        rows=RowSettings("rowwise_adagrad"),
        first_order=RowSettings("ftrl"),
        l1=Penalties(table=2.0),
    )
    _, after, _ = run(settings, "sparse")
    assert set(after.row_state["first_order"]) == {"n", "z"}
    assert after.row_state["embedding"].shape == (50,)


def test_the_sort_and_the_slot_map_train_alike(monkeypatch):
    settings = OptimizerSettings("adam", learning_rate=0.05)
    _, mapped, _ = run(settings, "sparse")
    assert mapped.scratch["space_0"].shape == (50,)
    monkeypatch.setattr(tables, "needs_scratch", lambda platform: False)
    compiled.cache_clear()
    _, sorted_, _ = run(settings, "sparse")
    compiled.cache_clear()  # Other tests use the slot map.
    assert sorted_.scratch == {}
    chex.assert_trees_all_close(mapped.params, sorted_.params, atol=1e-6)


def test_an_id_out_of_range_makes_the_loss_nan_and_touches_no_neighbour():
    batch = batch_of(0, spread=0.5)
    batch["ids"][2, 0] = 30  # would be the first row of the next field without the check
    settings = OptimizerSettings("sgd", learning_rate=0.1)
    before, after, losses = run(settings, "sparse", 1, name="lr", batches=[batch])
    assert np.isnan(losses[0])
    old, new = before.params["table"]["first_order"], after.params["table"]["first_order"]
    chex.assert_trees_all_equal(old[40:], new[40:])


@pytest.mark.parametrize("row_optimizer", ["rowwise_adagrad", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_step_makes_no_copy_of_the_table(row_optimizer, dtype):
    rows = 400_000
    mesh = create_mesh(jax.devices()[:1])
    model = build_model(
        "deepfm", (rows // 2, rows // 2), {"embed_dim": 8, "mlp_dims": (8,), "table_dtype": dtype}
    )
    optimizer = create_optimizer(
        OptimizerSettings(rows=RowSettings(name=row_optimizer)), 1, "sparse"
    )
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    batch = batch_of(0, dims=(rows // 2, rows // 2))
    compiled = step.lower(state, jax.device_put(batch)).compile()
    memory = compiled.memory_analysis()
    owned = sum(
        leaf.nbytes for leaf in jax.tree.leaves((state.params, state.row_state, state.scratch))
    )
    assert memory.alias_size_in_bytes >= owned
    assert memory.temp_size_in_bytes < rows  # bytes: less than a byte for each row of the table
    # No instruction copies an array of the table's length.
    assert not re.findall(rf"\[{rows}(?:,8)?\]\S* copy\(", compiled.as_text())


def test_bfloat16_tables_train_nearly_as_float32_ones():
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    _, single, losses = run(settings, "sparse", 60)
    _, half, same = run(settings, "sparse", 60, table_dtype="bfloat16")
    assert half.weights.params["table"]["embedding"].dtype == jnp.bfloat16
    assert half.row_state["embedding"].dtype == np.float32
    chex.assert_trees_all_close(losses, same, rtol=1e-7, atol=0.05)
    chex.assert_trees_all_close(
        single.params["table"],
        jax.tree.map(lambda a: np.asarray(a, np.float32), half.weights.params["table"]),
        atol=0.05,
    )


def test_a_bfloat16_table_takes_the_sparse_path():
    model = build_model("fm", DIMS, {"table_dtype": "bfloat16"})
    assert create_for(OptimizerSettings(), 1, model, 1000).rows is not None
    with pytest.raises(UserError, match=r"table_dtype='bfloat16' needs optimizer\.table"):
        create_for(OptimizerSettings(table="dense"), 1, model, 1000)


def test_a_run_does_not_train_a_float64_table():
    model = build_model("fm", DIMS, {"table_dtype": "float64"})
    with pytest.raises(UserError, match=r"table_dtype='float64' is for models .* as Flax modules"):
        table_path(OptimizerSettings(), model, 25)


def test_the_path_is_chosen_by_size_or_by_what_was_asked_for():
    model, batch = build_model("fm", DIMS, {}), 25  # 50 rows; a batch reads 25 * 2
    reads = batch * len(DIMS)
    assert sum(DIMS) == DENSE_ROWS_PER_READ * reads == 50

    def path(rows_more=0, **settings):
        grown = build_model("fm", (DIMS[0] + rows_more, *DIMS[1:]), {})
        return table_path(OptimizerSettings(**settings), grown, batch)

    assert path() == ("dense", "the table has 50 rows, and a batch reads 50")
    assert path(1) == ("sparse", "the table has 51 rows, and a batch reads only 50")
    assert path(10**6, table="dense") == ("dense", "optimizer.table is set")
    assert path(table="sparse").name == "sparse"
    assert path(rows=RowSettings("sgd")).reason == "optimizer.rows is set"
    assert path(first_order=RowSettings(learning_rate=0.1)).name == "sparse"
    assert path(10**6, name="lion") == ("dense", "lion has no row form")
    half = build_model("fm", DIMS, {"table_dtype": "bfloat16"})
    assert table_path(OptimizerSettings(), half, batch).name == "sparse"
    assert "moments" in path(1).changes
    assert model.features == as_features(DIMS)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "lion", "table": "sparse"}, "optimizer.rows.name='lion' is not a row optimizer"),
        ({"rows": {"name": "lion"}}, "optimizer.rows.name='lion' is not a row optimizer; use"),
        ({"table": "dense", "rows": {"name": "sgd"}}, "optimizer.rows applies only to the"),
        ({"table": "dense", "first_order": {"learning_rate": 0.1}}, "first_order applies only to"),
        ({"schedule": "plateau", "first_order": {"name": "ftrl"}}, "schedule='constant' instead"),
        (
            {"name": "adamm"},
            "'adamm' is not an optax optimizer with a learning_rate; did you mean 'adam'",
        ),
        ({"name": "lbfgs"}, "optimizer.name='lbfgs' with .* cannot train here: TypeError"),
        (
            {"name": "schedule_free_sgd"},
            "'schedule_free_sgd' is an optimizer that evaluates other weights",
        ),
        ({"options": {"beta1": 0.8}}, "optimizer.options has 'beta1', which is not an option"),
        ({"rows": {"name": "adam", "options": "b3=1"}}, "optimizer.rows.options has 'b3'"),
        ({"options": {"b1": "much"}}, "cannot train here"),
        ({"options": "b1 0.9"}, "optimizer options 'b1 0.9' must be KEY=VALUE"),
        ({"options": "0.9"}, "must be KEY=VALUE"),
    ],
)
def test_settings_that_cannot_train_are_refused(optimizer, message):
    with pytest.raises(UserError, match=message):
        create_for(from_data(OptimizerSettings, optimizer, "optimizer"), 1, MODEL, 8)
