import chex
import jax
import jax.numpy as jnp
import numpy as np

from deepfm_jax import LR
from deepfm_jax.partitioning import create_mesh
from deepfm_jax.training.checkpoint import Checkpoints, Progress
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.settings import OptimizerSettings
from deepfm_jax.training.state import create_state

OPTIMIZER = create_optimizer(OptimizerSettings(), 1, "sparse")


def state_at(step, value=0.0, devices=None):
    state = create_state(LR((8, 8)), OPTIMIZER, 0, create_mesh(devices))
    table = {"first_order": state.params["table"]["first_order"] * 0 + value}
    return state.replace(step=jnp.asarray(step, jnp.int32), params={**state.params, "table": table})


def steps_kept(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_the_best_and_the_last_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((1, 0.5), (2, 0.9), (3, None), (4, 0.7), (5, None), (6, None)):
            progress = Progress(best_step=2 if step > 1 else 1)
            checkpoints.save(state_at(step, step), progress, score=score)
    assert steps_kept(tmp_path) == [2, 6]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last_step == 6
        assert checkpoints.progress(6).best_step == 2
        best = checkpoints.restore(2, like=state_at(0))
    np.testing.assert_array_equal(best.params["table"]["first_order"], np.full(16, 2.0))
    assert int(best.step) == 2


def test_a_new_folder_has_no_last_step(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last_step is None


def test_progress_comes_back_whole(tmp_path):
    progress = Progress(3, 7, 0.81, 5, 1, False, 12.5, 4096, "ab-cd", [[1, 0.6]], [{"auc": 0.7}])
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(9), progress)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.progress(9) == progress


def test_a_state_saved_on_eight_devices_is_restored_on_one(tmp_path):
    state = state_at(1, 0.25)
    assert len(state.params["table"]["first_order"].sharding.device_set) == 8
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress())
    like = state_at(0, devices=jax.devices()[:1])
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(1, like=like)
    assert len(restored.params["table"]["first_order"].sharding.device_set) == 1
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, restored), jax.tree.map(np.asarray, state))


def test_a_bfloat16_table_comes_back_bit_for_bit(tmp_path):
    state = create_state(LR((8, 8), table_dtype="bfloat16"), OPTIMIZER, 0, create_mesh())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, Progress())
        restored = checkpoints.restore(0, like=state)
        weights = checkpoints.restore_weights(0, like=state.weights)
    chex.assert_trees_all_equal(restored.params, state.params)
    assert weights.params["table"]["first_order"].dtype == jnp.bfloat16
    chex.assert_trees_all_equal(weights.params, state.weights.params)
