import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer, learning_rate_schedule
from deepfm_jax.training.optimizer_settings import OptimizerSettings, Penalties
from deepfm_jax.training.state import Weights, create_state, parameter_count, placement_for
from deepfm_jax.training.step import cut_learning_rate, make_score_step, make_train_step
from tests.small_models import ONE_OF_EACH_KIND_OF_TABLE, small_model

DIMS = (24, 16)
every_path = pytest.mark.parametrize("path", ["dense", "sparse"])


def batch_of(rows=32, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.ones(rows, np.float32)
    mask[-3:] = 0
    return {
        "ids": np.stack([rng.integers(0, dim, rows) for dim in DIMS], axis=1).astype(np.int32),
        "values": rng.normal(1, 0.2, (rows, 2)).astype(np.float32),
        "labels": rng.integers(0, 2, (rows, 1)).astype(np.float32),
        "mask": mask,
    }


def run(settings, steps=3, devices=None, name="deepfm", seed=0, path="dense", **hyperparameters):
    """States before and after some steps, as NumPy, and the losses."""
    mesh = create_mesh(devices)
    model = small_model(name, DIMS, **hyperparameters)
    optimizer = create_optimizer(settings, steps, path)
    state = create_state(Network(model), optimizer, seed, placement_for(optimizer, mesh))
    before = jax.tree.map(np.array, state)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    losses = []
    for i in range(steps):
        batch = jax.device_put(batch_of(seed=i), batch_sharding(mesh, 32))
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return before, jax.tree.map(np.array, state), losses


def plain_gradient(params, batch, name="deepfm"):
    model = small_model(name, DIMS)

    def loss(p):
        logits = model.apply({"params": p}, batch["ids"], batch["values"])
        rows = jnp.logaddexp(0, logits) - batch["labels"][:, 0] * logits
        return jnp.sum(rows * batch["mask"]) / batch["mask"].sum()

    return jax.value_and_grad(loss)(params)


def test_one_sgd_step_is_minus_rate_times_gradient_of_loss_and_penalties():
    settings = OptimizerSettings(
        "sgd", learning_rate=0.5, l2=Penalties(table=0.3, tower=0.7, interaction=0.7)
    )
    before, after, losses = run(settings, steps=1)
    loss, gradient = plain_gradient(before.params, batch_of())
    assert losses[0] == pytest.approx(float(loss), rel=1e-6)

    def expected(path, w, g):
        name = jax.tree_util.keystr(path)
        decay = 0.3 if "table" in name else 0.7 if "kernel" in name else 0.0
        return w - 0.5 * (g + decay * w)

    chex.assert_trees_all_close(
        after.params,
        jax.tree.map_with_path(expected, before.params, gradient),
        rtol=1e-5,
        atol=1e-6,
    )
    assert after.step == 1


@every_path
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_batch_without_a_label_has_loss_0_and_moves_nothing(path, optimizer):
    settings = OptimizerSettings(optimizer, learning_rate=0.5, clip_norm=1.0)
    placement = placement_for(created := create_optimizer(settings, 1, path), create_mesh())
    network = Network(small_model("deepfm", DIMS))
    state = create_state(network, created, 0, placement)
    before = jax.tree.map(np.array, state.params)
    batch = {**batch_of(), "labels": np.full((32, 1), np.nan, np.float32)}
    state, metrics = make_train_step(network, created, placement)(state, batch)
    assert float(metrics["loss"]) == 0
    chex.assert_trees_all_equal(jax.tree.map(np.array, state.params), before)


def test_clipping_counts_the_penalties():
    settings = OptimizerSettings("sgd", learning_rate=1.0, clip_norm=0.01, l2=Penalties(table=5.0))
    before, after, _ = run(settings, steps=1)
    moved = jax.tree.map(lambda a, b: a - b, after.params, before.params)
    norm = np.sqrt(sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(moved)))
    assert norm == pytest.approx(0.01, rel=1e-4)


# Every model is on the sparse path in sharded_step_test.py. The paths differ in the table alone.
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        *((name, "adagrad") for name in ONE_OF_EACH_KIND_OF_TABLE),
        ("deepfm", "adam"),
        ("deepfm", "sgd"),
    ],
)
def test_dense_updates_on_eight_devices_do_what_one_does(name, optimizer):
    settings = OptimizerSettings(
        optimizer, learning_rate=0.05, clip_norm=1.0, l2=Penalties(table=0.01)
    )
    _, sharded, many = run(settings, name=name)
    _, alone, one = run(settings, name=name, devices=jax.devices()[:1])
    # Sums over devices are taken in a different order.
    chex.assert_trees_all_close(many, one, rtol=1e-5, atol=0)
    chex.assert_trees_all_close(sharded.params, alone.params, rtol=2e-4, atol=2e-5)


def test_eight_devices_share_one_batch_norm():
    settings = OptimizerSettings("sgd", learning_rate=0.05)
    _, sharded, _ = run(settings, batch_norm=True)
    _, alone, _ = run(settings, batch_norm=True, devices=jax.devices()[:1])
    assert sharded.batch_stats
    chex.assert_trees_all_close(sharded.batch_stats, alone.batch_stats, rtol=1e-4, atol=1e-5)


@every_path
def test_the_state_is_donated_and_one_compilation_serves_all_steps(path):
    mesh = create_mesh()
    model = small_model("deepfm", DIMS)
    optimizer = create_optimizer(OptimizerSettings(), 10, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    first = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    state = first
    for _ in range(3):
        state, _ = step(state, jax.device_put(batch_of(), batch_sharding(mesh, 32)))
    assert first.params["table"]["embedding"].is_deleted()
    assert step._cache_size() == 1


@every_path
def test_dropout_differs_by_step_and_repeats_by_seed(path):
    settings = OptimizerSettings("sgd", learning_rate=1e-9)
    losses = run(settings, dropout=0.5, path=path)[2]
    assert losses == run(settings, dropout=0.5, path=path)[2]
    assert losses != run(settings, dropout=0.5, seed=1, path=path)[2]
    mesh = create_mesh()
    model = small_model("deepfm", DIMS, dropout=0.5)
    optimizer = create_optimizer(settings, 2, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    same = jax.device_put(batch_of(), batch_sharding(mesh, 32))
    state, one = step(state, same)
    _, two = step(state, same)
    assert abs(float(one["loss"]) - float(two["loss"])) > 1e-4


@every_path
def test_rows_under_mask_zero_change_nothing(path):
    mesh = create_mesh()
    model = small_model("deepfm", DIMS)
    optimizer = create_optimizer(OptimizerSettings("sgd", learning_rate=0.1), 1, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    results = []
    for wild in (False, True):
        batch = batch_of()
        if wild:
            batch["values"][-3:], batch["labels"][-3:] = 50.0, 1.0
        state, metrics = step(
            create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh)),
            jax.device_put(batch, batch_sharding(mesh, 32)),
        )
        results.append((jax.tree.map(np.array, state.params), float(metrics["loss"])))
    chex.assert_trees_all_close(results[0], results[1], rtol=1e-6)


@every_path
def test_a_cut_divides_the_rate_down_to_its_floor(path):
    mesh = create_mesh()
    model = small_model("lr", DIMS)
    optimizer = create_optimizer(OptimizerSettings("sgd", learning_rate=1.0), 1, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    moves = []
    for cuts in range(3):
        state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
        before = np.array(state.params["table"]["first_order"])
        for _ in range(cuts):
            state = cut_learning_rate(state, 0.1, floor_scale=0.05)
        state, _ = step(state, jax.device_put(batch_of(), batch_sharding(mesh, 32)))
        moves.append(np.array(state.params["table"]["first_order"]) - before)
    chex.assert_trees_all_close(moves[1], 0.1 * moves[0], rtol=1e-3, atol=1e-8)
    chex.assert_trees_all_close(moves[2], 0.05 * moves[0], rtol=1e-3, atol=1e-8)
    assert step._cache_size() == 1


def test_warm_up_and_cosine():
    settings = OptimizerSettings(learning_rate=0.2, schedule="warmup_cosine", warmup_steps=10)
    rate = learning_rate_schedule(settings, 110)
    chex.assert_trees_all_close(
        np.array([rate(step) for step in (0, 5, 10, 60, 110)]),
        np.array([0, 0.1, 0.2, 0.1, 0.0]),
        rtol=1e-7,
        atol=1e-7,
    )


def test_scoring_uses_running_statistics_and_no_dropout():
    model = small_model("deepfm", DIMS, batch_norm=True, dropout=0.5)
    batch = batch_of()
    variables = model.init(jax.random.key(0), batch["ids"])
    score = make_score_step(Network(model))
    weights = Weights(variables["params"], variables["batch_stats"])
    whole = score(weights, batch)
    part = score(weights, {name: batch[name][:5] for name in ("ids", "values")})
    chex.assert_trees_all_close(whole[:5], part, rtol=1e-5, atol=1e-6)


def test_parameters_are_counted():
    _, state, _ = run(OptimizerSettings(), steps=1)
    # 40 rows of 1 + 3, the bias, 6 x 8 + 8, 8 + 1
    assert parameter_count(state.params) == 40 * 4 + 1 + 56 + 9
