import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import LR, UserError
from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
from deepfm_jax.embedding import restripe, stripes_of
from deepfm_jax.training.checkpoint import Checkpoints, Progress, restore_best
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings
from deepfm_jax.training.state import create_state, placement_for, weights_layout
from deepfm_jax.training.step import make_score_step, make_train_step
from tests.small_models import small_model

OPTIMIZER = create_optimizer(OptimizerSettings(), 1, "sparse")


def state_at(step, value=0.0, devices=None):
    state = create_state(
        Network(LR((8, 8))), OPTIMIZER, 0, placement_for(OPTIMIZER, create_mesh(devices))
    )
    table = {"first_order": state.params["table"]["first_order"] * 0 + value}
    return state.replace(step=jnp.asarray(step, jnp.int32), params={**state.params, "table": table})


def steps_kept(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


# Best step so far, after each save.
BEST = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2}


def test_the_best_and_the_last_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, best in BEST.items():
            checkpoints.save(state_at(step, step), Progress(best_step=best))
    assert steps_kept(tmp_path) == [2, 6]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last_step == 6
        assert checkpoints.progress(6).best_step == 2
        best = checkpoints.restore(2, like=state_at(0))
    chex.assert_trees_all_equal(best.params["table"]["first_order"], np.full(16, 2.0))
    assert int(best.step) == 2


def test_the_best_is_kept_when_a_run_is_resumed(tmp_path):
    for step, best in BEST.items():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state_at(step, step), Progress(best_step=best))
    assert steps_kept(tmp_path) == [2, 6]
    # Only the progress records which is the best: other versions wrote a score, or nothing.
    assert not list((tmp_path / "checkpoints").glob("*/metrics"))


def test_a_best_checkpoint_that_is_gone_is_reported(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(3), Progress(best_step=2))
    with pytest.raises(UserError, match="step 2, which had the best weights, is gone"):
        restore_best(tmp_path, like=state_at(0).weights)


def test_a_new_folder_has_no_last_step(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last_step is None


def test_progress_comes_back_whole(tmp_path):
    progress = Progress(
        3, 7, 0.81, 5, 1, False, 12.5, 4096, "ab-cd", 2, [[1, 0.6]], 1, 1, [{"auc": 0.7}]
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(9), progress)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.progress(9) == progress


MODEL = small_model("wide_deep", (37, 1, 23))  # vectors of two fields, weights of three
ROWS = {"first_order": 61, "embedding": 38}


@functools.cache
def compiled(devices, path):
    """The optimizer and the placement of a state on so many devices, and its compiled steps."""
    mesh = create_mesh(jax.devices()[:devices])
    optimizer = create_optimizer(OptimizerSettings(learning_rate=0.1), 1, path)
    placement = placement_for(optimizer, mesh)
    train_step = make_train_step(Network(MODEL), optimizer, placement)
    return mesh, optimizer, placement, train_step, make_score_step(Network(MODEL), placement)


def trained(devices, seed=0, path="sparse"):
    """A state after one step on so many devices, what restores it, and logits of a batch."""
    mesh, optimizer, placement, train_step, score_step = compiled(devices, path)
    rng = np.random.default_rng(seed)
    batch = {
        "ids": np.stack([rng.integers(0, dim, 24) for dim in (37, 1, 23)], 1).astype(np.int32),
        "labels": rng.integers(0, 2, (24, 1)).astype(np.float32),
        "mask": np.ones(24, np.float32),
    }
    state = create_state(Network(MODEL), optimizer, seed, placement)
    spread = jax.device_put(batch, batch_sharding(mesh, 24))
    state, _ = train_step(state, spread)
    return state, score_step, weights_layout(Network(MODEL), placement)


def in_order(arrays):
    """Arrays of the table in the order of their rows, whatever their layout."""
    return {
        name: jax.tree.map(
            lambda array, rows=rows: np.asarray(restripe(array, stripes_of(array), 1, rows)),
            arrays[name],
        )
        for name, rows in ROWS.items()
    }


# Fewer devices, more, as many, and numbers of which none divides the other.
@pytest.mark.parametrize(
    ("saved", "restored", "path"),
    [
        *((*devices, "sparse") for devices in ((8, 1), (1, 8), (8, 4), (3, 2), (8, 8))),
        *((*devices, "dense") for devices in ((8, 3), (3, 8))),
    ],
)
def test_a_state_is_restored_onto_any_number_of_devices(tmp_path, saved, restored, path):
    state, score, _ = trained(saved, path=path)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress(best_step=1))
    like, score_there, layout = trained(restored, seed=5, path=path)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(1, like=like)
    ids = np.stack([np.arange(24) % dim for dim in (37, 1, 23)], axis=1).astype(np.int32)
    logits = np.asarray(score_there(found.weights, {"ids": ids}))
    # The weights are equal, but each number of devices compiles different sums.
    chex.assert_trees_all_close(logits, score(state.weights, {"ids": ids}), rtol=1e-6, atol=0)
    chex.assert_trees_all_equal(
        logits, np.asarray(score_there(restore_best(tmp_path, layout), {"ids": ids}))
    )
    chex.assert_trees_all_equal(in_order(found.params["table"]), in_order(state.params["table"]))
    if path == "sparse":
        chex.assert_trees_all_equal(in_order(found.row_state), in_order(state.row_state))
    chex.assert_trees_all_equal(
        jax.tree.map(np.asarray, (found.opt_state, found.step, found.rng)),
        jax.tree.map(np.asarray, (state.opt_state, state.step, state.rng)),
    )
    assert jax.tree.map(lambda a: a.sharding, found) == jax.tree.map(lambda a: a.sharding, like)


def test_a_bfloat16_table_comes_back_bit_for_bit(tmp_path):
    state = create_state(
        Network(LR((8, 8), table_dtype="bfloat16")),
        OPTIMIZER,
        0,
        placement_for(OPTIMIZER, create_mesh()),
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress())
        restored = checkpoints.restore(0, like=state)
        weights = checkpoints.restore_weights(0, like=state.weights)
    chex.assert_trees_all_equal(restored.params, state.params)
    assert weights.params["table"]["first_order"].dtype == jnp.bfloat16
    chex.assert_trees_all_equal(weights.params, state.weights.params)


def test_losses_are_joined_in_means_where_they_are_too_many_and_never_end_early():
    whole, resumed = Progress(), Progress()
    for step in range(1, 20_001):
        whole.add_loss(step, 1 / step)
        resumed.add_loss(step, 1 / step)
        if step % 3000 == 0:  # As if restored from a checkpoint.
            resumed = Progress(**dataclasses.asdict(resumed))
    assert resumed == whole
    steps = [step for step, _ in whole.train_losses]
    assert 2000 <= len(steps) < 4096
    assert set(np.diff(steps)) == {whole.loss_stride} == {8}
    # Each point is the mean of the eight that it stands for.
    for step, loss in whole.train_losses[:: len(steps) // 20]:
        assert loss == pytest.approx(np.mean([1 / each for each in range(step - 7, step + 1)]))
    assert steps[-1] > 20_000 - 8
