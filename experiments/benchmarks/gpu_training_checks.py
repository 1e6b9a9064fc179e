"""Checks of training on the device, run by ``gpu_checks``.

Each returns the largest difference that it found, the largest that passes (None if it is only
reported), and a note.
"""

import functools
import tempfile
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from deepfm_jax import build_model
from deepfm_jax.distributed.partitioning import DEFAULT_PARTITIONING, create_mesh
from deepfm_jax.embedding import ROW_OPTIMIZERS, LocalTable, ShardedTable
from deepfm_jax.embedding.rounding import round_stochastically
from deepfm_jax.training.checkpoint import Checkpoints, Progress
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, RowSettings
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_train_step

# Difference, largest difference that passes, note.
Outcome: TypeAlias = tuple[float, float | None, str]

_DIMS = (40, 30, 20)
_BATCH = 64
_STEPS = 20
_DETERMINISTIC = {"xla_gpu_deterministic_ops": True}


def _batch(seed: int, every_row: bool = False) -> dict[str, np.ndarray]:
    """Draws Zipf ids or, with ``every_row``, ids that read each row of each field."""
    rng = np.random.default_rng(seed)
    if every_row:
        ids = [np.arange(_BATCH) % dim for dim in _DIMS]
    else:
        ids = [np.minimum(rng.zipf(1.3, _BATCH) - 1, dim - 1) for dim in _DIMS]
    return {
        "ids": np.stack(ids, axis=1).astype(np.int32),
        "labels": rng.integers(0, 2, (_BATCH, 1)).astype(np.float32),
        "mask": np.ones(_BATCH, np.float32),
    }


def _trainer(
    settings: OptimizerSettings, path: str, device: Any = None, **changes: Any
) -> tuple[Any, Callable]:
    """Creates the first state of a small DeepFM, and its step."""
    mesh = create_mesh([device or jax.devices()[0]])
    hyperparameters = {"embed_dim": 4, "mlp_dims": (16, 8), "init_std": 0.3, **changes}
    model = build_model("deepfm", _DIMS, hyperparameters)
    optimizer = create_optimizer(settings, _STEPS, path)
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    return create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh)), step


def _trained(
    settings: OptimizerSettings, path: str, every_row: bool = False, **more: Any
) -> tuple[Any, list[float]]:
    """Trains for some steps; returns the weights, on the host, and the losses."""
    state, step = _trainer(settings, path, **more)
    losses = []
    for number in range(_STEPS):
        state, metrics = step(state, _batch(number, every_row))
        losses.append(float(metrics["loss"]))
    return jax.tree.map(np.asarray, state.weights.params), losses


def _largest(ours: Any, theirs: Any) -> float:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(float(np.max(np.abs(a.astype(np.float64) - b))) for a, b in pairs)


def _same_bits(ours: Any, theirs: Any) -> bool:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def row_optimizer(name: str) -> Outcome:
    """Training by a row optimizer matches the CPU and, if defined, the dense optimizer."""
    settings = OptimizerSettings(
        "sgd", learning_rate=0.05, clip_norm=1.0, rows=RowSettings(name=name)
    )
    ours, _ = _trained(settings, "sparse")
    on_cpu, _ = _trained(settings, "sparse", device=jax.devices("cpu")[0])
    difference, note = _largest(ours, on_cpu), "weights after 20 steps: the CPU's"
    if name in ("sgd", "adagrad", "adam"):
        # Lazy Adam equals dense Adam if each step reads every row.
        settings = OptimizerSettings(name, learning_rate=0.05, clip_norm=1.0)
        ours, _ = _trained(settings, "sparse", every_row=True)
        dense, _ = _trained(settings, "dense", every_row=True)
        difference = max(difference, _largest(ours, dense))
        note += ", and the dense path's"
    return difference, 2e-4, note


def bfloat16_table() -> Outcome:
    """A table in bfloat16 trains nearly like one in float32."""
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    _, single = _trained(settings, "sparse")
    _, half = _trained(settings, "sparse", table_dtype="bfloat16")
    return float(np.max(np.abs(np.subtract(single, half)))), 0.05, "losses: float32's"


def stochastic_rounding() -> Outcome:
    """The mean of many roundings is the value, and each is one of its two neighbors."""
    draws = 1 << 20
    value = np.float32(1 + 2.0**-10)  # a quarter of the way from 1 to 1 + 2^-8
    rounded = jax.jit(round_stochastically)(jax.random.key(0), jnp.full(draws, value))
    rounded = np.asarray(rounded.astype(jnp.float32), np.float64)
    assert set(np.unique(rounded)) == {1.0, 1 + 2.0**-7}, "other values than the two neighbours"
    deviation = 2.0**-7 * np.sqrt(0.125 * 0.875 / draws)
    return abs(float(rounded.mean()) - float(value)) / deviation, 5.0, "standard deviations"


def resumed() -> Outcome:
    """A run resumed from a checkpoint ends with the same bits as an uninterrupted run."""
    settings = OptimizerSettings(
        "adam", learning_rate=0.05, rows=RowSettings(name="rowwise_adagrad")
    )
    state, step = _trainer(settings, "sparse")
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        for number in range(10):
            if number == 5:
                checkpoints.save(state, Progress())
            state, _ = step(state, _batch(number))
        expected = jax.tree.map(np.asarray, (state.params, state.row_state, state.opt_state))
        state = checkpoints.restore(5, like=_trainer(settings, "sparse")[0])
        for number in range(5, 10):
            state, _ = step(state, _batch(number))
    found = jax.tree.map(np.asarray, (state.params, state.row_state, state.opt_state))
    return float(not _same_bits(found, expected)), 0.0, "1 where a bit differs"


def repeated(path: str, **options: Any) -> Outcome:
    """Two runs give the same bits."""
    settings = OptimizerSettings("adagrad", learning_rate=0.05)
    state, step = _trainer(settings, path)
    program = step.lower(state, _batch(0)).compile(compiler_options=options or None)

    def run():
        state, _ = _trainer(settings, path)
        for number in range(_STEPS):
            state, _ = program(state, _batch(number))
        return jax.tree.map(np.asarray, state.params)

    first = run()
    return float(not all(_same_bits(first, run()) for _ in range(3))), None, "1 where a bit differs"


def deterministic(path: str) -> Outcome:
    """Two runs give the same bits if XLA uses deterministic operations."""
    on_gpu = jax.devices()[0].platform == "gpu"
    difference, _, note = repeated(path, **(_DETERMINISTIC if on_gpu else {}))
    return difference, 0.0, note


def out_of_range() -> Outcome:
    """An out-of-range id makes the loss NaN and does not move a row of the next field."""
    state, step = _trainer(OptimizerSettings("sgd", learning_rate=0.1), "sparse")
    before = jax.tree.map(np.asarray, state.params["table"])
    batch = _batch(0)
    batch["ids"] = batch["ids"] % 5
    batch["ids"][3, 0] = _DIMS[0] + 7  # would be a row of the next field if it were not checked
    state, metrics = step(state, batch)
    assert np.isnan(float(metrics["loss"])), "the loss is finite"
    after = jax.tree.map(np.asarray, state.params["table"])
    row = _DIMS[0] + 7
    moved = {name: array[row] - before[name][row] for name, array in after.items()}
    return _largest(moved, jax.tree.map(np.zeros_like, moved)), 0.0, "move of the neighbour's row"


def sharded_lookup() -> Outcome:
    """The sharded table, on one device, reads the same rows as the local table."""
    mesh = create_mesh(jax.devices()[:1])
    rng = np.random.default_rng(0)
    table = {"embedding": jnp.asarray(rng.normal(size=(90, 4)).astype(np.float32))}
    row_ids = jnp.asarray(np.minimum(rng.zipf(1.3, (_BATCH, 3)) - 1, 89).astype(np.int32))
    found = [
        np.asarray(jax.jit(access.lookup)(table, row_ids)[0]["embedding"])
        for access in (LocalTable(90), ShardedTable(90, mesh, DEFAULT_PARTITIONING))
    ]
    return float(not _same_bits(*found)), 0.0, "1 where a bit differs"


CHECKS: dict[str, Callable[[], Outcome]] = {
    "ids out of range": out_of_range,
    "resumed run": resumed,
    **{f"row optimizer {name}": functools.partial(row_optimizer, name) for name in ROW_OPTIMIZERS},
    "bfloat16 table": bfloat16_table,
    "stochastic rounding": stochastic_rounding,
    "sharded lookup": sharded_lookup,
    **{
        f"same bits every time, {path}": functools.partial(repeated, path)
        for path in ("sparse", "dense")
    },
    **{
        f"same bits with xla_gpu_deterministic_ops, {path}": functools.partial(deterministic, path)
        for path in ("sparse", "dense")
    },
}
