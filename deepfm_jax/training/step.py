"""The train step and the scoring step, jitted."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deepfm_jax.embedding import (
    CPU_CHUNK,
    RowGradients,
    Rows,
    by_slot_map,
    by_sort,
    read_rows,
    sum_equal_rows,
    table_rows,
)
from deepfm_jax.embedding.access import read
from deepfm_jax.heads import OneTask
from deepfm_jax.partitioning import state_shardings
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.state import TrainState, Weights, abstract_state, split_table
from deepfm_jax.typing import Logits, PyTree

Batch: TypeAlias = dict[str, jax.Array]
Metrics: TypeAlias = dict[str, jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(model: nn.Module, optimizer: Optimizer, head: OneTask, mesh: Mesh) -> TrainStep:
    """``train_step(state, batch) -> (state, metrics)``, jitted, the state donated.

    ``batch`` has ``ids`` [B, S], ``labels`` [B, 1], ``mask`` [B] and, unless all are 1, ``values``
    [B, S]; ``metrics`` has the ``loss`` of the batch before the update, without penalties. The
    optimizer says which path the table takes; the model does not know.
    """
    step = _dense_step if optimizer.rows is None else _sparse_step

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return step(model, optimizer, head, state, batch)

    # Without fixed output shardings the compiler may choose others, and the second call recompiles.
    shardings = state_shardings(abstract_state(model, optimizer, mesh), mesh)
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))


def _dense_step(model, optimizer, head, state, batch):
    """All parameters by dense gradients: every row of the table is read and written."""

    def loss_fn(params):
        return _loss(model, head, state, batch, params, batch["ids"], "__call__")

    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    grads = optimizer.clip(optimizer.decay(state.params, grads))
    params, opt_state = _moved(optimizer, state, state.params, grads)
    state = state.replace(
        step=state.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats
    )
    return state, {"loss": loss}


def _sparse_step(model, optimizer, head, state, batch):
    """The table by its touched rows alone, gathered outside ``grad`` and written in place."""
    dense, table = split_table(state.params)
    total_rows = int(sum(model.field_dims))
    rows_read = table_rows(batch["ids"], model.field_dims)
    rows = read_rows(table, rows_read)

    def loss_fn(dense, rows):
        return _loss(model, head, state, batch, dense, rows, "from_rows")

    (loss, batch_stats), (grads, row_grads) = jax.value_and_grad(
        loss_fn, argnums=(0, 1), has_aux=True
    )(dense, rows)
    row_ids, scratch = rows_read.reshape(-1), state.scratch
    if isinstance(scratch, tuple):  # none: see ``needs_scratch``
        representatives, chunk = by_sort(row_ids), None
    else:
        scratch, representatives = by_slot_map(scratch, row_ids)
        chunk = CPU_CHUNK
    touched = sum_equal_rows(row_ids, representatives, _by_occurrence(row_grads), total_rows, chunk)
    grads = optimizer.decay(dense, grads)
    row_grads = optimizer.row_decay(_touched_weights(table, touched), touched.grads)
    grads, row_grads = optimizer.clip((grads, row_grads))
    dense, opt_state = _moved(optimizer, state, dense, grads)
    table, slots = dict(table), dict(state.slots)
    for index, name in enumerate(sorted(table)):
        table[name], slots[name] = optimizer.rows[name].update(
            table[name],
            slots[name],
            touched.replace(grads=row_grads[name]),  # pyright: ignore[reportAttributeAccessIssue]
            state.step,
            state.rate_scale,
            jax.random.fold_in(_key(state), 1 + index),
        )
    state = state.replace(
        step=state.step + 1,
        params={**dense, "table": table},
        batch_stats=batch_stats,
        opt_state=opt_state,
        slots=slots,
        scratch=scratch,
    )
    return state, {"loss": loss}


def _loss(model, head, state, batch, params, inputs, method) -> tuple[jax.Array, PyTree]:
    """The batch's loss, and batch norm's new statistics."""
    logits, changed = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        inputs,
        batch.get("values"),
        train=True,
        rngs={"dropout": jax.random.fold_in(_key(state), 0)},
        mutable=["batch_stats"],
        method=method,
    )
    return head.loss(logits, batch["labels"], batch["mask"]), changed.get("batch_stats", {})


def _moved(
    optimizer: Optimizer, state: TrainState, params: PyTree, grads: PyTree
) -> tuple[PyTree, PyTree]:
    """Parameters and optax state after the dense update."""
    updates, opt_state = optimizer.dense.update(grads, state.opt_state, params)
    updates = jax.tree.map(lambda update: state.rate_scale * update, updates)
    return optax.apply_updates(params, updates), opt_state


def _key(state: TrainState) -> jax.Array:
    """This step's random key; dropout and each array's rounding fold a number of their own in."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)


def _by_occurrence(rows: Rows) -> dict[str, jax.Array]:
    """Arrays [B, S, ...] of a batch's rows as [N, ...], by the table's names."""
    arrays = {name: array for name, array in rows._asdict().items() if array is not None}
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}


def _touched_weights(table: PyTree, touched: RowGradients) -> PyTree:
    """The weights of the touched rows, and 0 where there is none, which no norm must count.

    Where no penalty asks for them, the compiler drops it all.
    """

    def weights(array):
        rows = read(array, touched.row_ids).astype(jnp.float32)
        # Some fields' rows may have no vectors; rows after the touched ones are V.
        stands = touched.row_ids < len(array)
        return jnp.where(stands.reshape(-1, *(1,) * (rows.ndim - 1)), rows, 0.0)

    return jax.tree.map(weights, table)


def make_score_step(model: nn.Module) -> Callable[[Weights, Any, Any], Logits]:
    """``score(weights, ids, values) -> logits [B]``, jitted."""

    @jax.jit
    def score(weights, ids, values):
        variables = {"params": weights.params, "batch_stats": weights.batch_stats}
        return model.apply(variables, ids, values)

    return score


def cut_learning_rate(state: TrainState, factor: float, floor_scale: float) -> TrainState:
    """The state with its learning rate multiplied by ``factor``, not below ``floor_scale``."""
    scale = jnp.maximum(state.rate_scale * factor, floor_scale)
    scale = jax.device_put(scale, state.rate_scale.sharding)
    return state.replace(rate_scale=scale)  # pyright: ignore[reportAttributeAccessIssue]
