"""The train step and the scoring step, jitted."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from deepfm_jax.distributed.partitioning import BATCH_SPEC, DEFAULT_PARTITIONING, Partitioning
from deepfm_jax.embedding import LocalTable, Rows, RowUpdate, ShardedTable, create_table, table_rows
from deepfm_jax.features import FieldDims, total_rows
from deepfm_jax.heads import OneTask
from deepfm_jax.metrics.calibration import correct_logits
from deepfm_jax.training.compiling import compiler_options, warn_of_slow_scatters
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.state import TrainState, Weights, layout_shardings, split_table
from deepfm_jax.typing import Ids, Logits, PyTree

Batch: TypeAlias = dict[str, jax.Array]
Metrics: TypeAlias = dict[str, jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: nn.Module,
    optimizer: Optimizer,
    head: OneTask,
    mesh: Mesh,
    partitioning: Partitioning = DEFAULT_PARTITIONING,
) -> TrainStep:
    """``train_step(state, batch) -> (state, metrics)``, jitted, the state donated.

    ``batch`` has ``ids`` [B, S], ``labels`` [B, 1], ``mask`` [B] and, unless all are 1, ``values``
    [B, S]; ``metrics`` has the ``loss`` of the batch before the update, without penalties. The
    optimizer says which path the table takes; the model does not know. It has compiler options of
    its own (``compiling``), so JAX refuses it inside another ``jax.jit``.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if optimizer.rows is None:
            return _dense_step(model, optimizer, head, state, batch)
        table = create_table(total_rows(model.field_dims), mesh, partitioning)  # pyright: ignore[reportAttributeAccessIssue]
        return _sparse_step(model, optimizer, head, table, state, batch)

    platform = mesh.devices.flat[0].platform
    warn_of_slow_scatters(platform)
    # Without fixed output shardings the compiler may choose others, and the second call recompiles.
    shardings = layout_shardings(model, optimizer, mesh, partitioning)
    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler_options(model, platform),
    )


def _dense_step(model, optimizer, head, state, batch):
    """All parameters by dense gradients: every row of the table is read and written."""

    def loss_fn(params):
        return _loss(model, head, state, batch, params, batch["ids"], "__call__")

    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    grads = optimizer.decay(state.params, grads)
    grads = optimizer.clip(_without_frozen(state, grads))
    params, opt_state = _moved(optimizer, state, state.params, grads)
    state = state.replace(
        step=state.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats
    )
    return state, {"loss": loss}


def _sparse_step(model, optimizer, head, access: LocalTable | ShardedTable, state, batch):
    """The table by its touched rows alone, gathered outside ``grad`` and written in place."""
    dense, table = split_table(state.params)
    rows, route = _looked_up(access, table, batch["ids"], model.field_dims)

    def loss_fn(dense, rows):
        return _loss(model, head, state, batch, dense, rows, "from_rows")

    (loss, batch_stats), (grads, row_grads) = jax.value_and_grad(
        loss_fn, argnums=(0, 1), has_aux=True
    )(dense, rows)
    update = RowUpdate(
        step=state.step,
        scale=state.rate_scale,
        key=_key(state),
        optimizers=optimizer.rows,
        decay=optimizer.row_decay,
        clip_norm=optimizer.clip_norm,
        frozen=state.frozen,
    )
    table, slots, scratch, grads = access.update(
        update,
        table,
        state.slots,
        state.scratch,
        route,
        _by_occurrence(row_grads),
        optimizer.decay(dense, grads),
    )
    dense, opt_state = _moved(optimizer, state, dense, grads)
    state = state.replace(
        step=state.step + 1,
        params={**dense, "table": table},
        batch_stats=batch_stats,
        opt_state=opt_state,
        slots=slots,
        scratch=scratch,
    )
    return state, {"loss": loss}


def _looked_up(
    access: LocalTable | ShardedTable, table: PyTree, ids: Ids, field_dims: FieldDims
) -> tuple[Rows, Any]:
    """The rows of a batch, and their route."""
    rows, route = access.lookup(table, table_rows(ids, field_dims))
    return rows.of_fields(field_dims), route


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


def _without_frozen(state: TrainState, grads: PyTree) -> PyTree:
    """Gradients that are 0 where a row is not to move; each optimizer here leaves it then."""
    table = {
        name: jnp.where(state.frozen[name][:, None], 0.0, grad) if name in state.frozen else grad
        for name, grad in grads["table"].items()
    }
    return {**grads, "table": table}


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


def _by_occurrence(rows: Rows) -> dict[str, Any]:
    """Arrays [B, S, ...] of a batch's rows as [N, ...], by the table's names."""
    arrays = {"first_order": rows.first_order, "embedding": rows.embedding}
    return {
        name: array.reshape(-1, *array.shape[2:])
        for name, array in arrays.items()
        if array is not None
    }


def make_score_step(
    model: nn.Module,
    optimizer: Optimizer | None = None,
    mesh: Mesh | None = None,
    partitioning: Partitioning = DEFAULT_PARTITIONING,
    negative_rate: float = 1.0,
) -> Callable[[Weights, Any, Any], Logits]:
    """``score(weights, ids, values) -> logits [B]``, jitted.

    Like the train step, it cannot be called inside another ``jax.jit``.

    Args:
      model: Any of ``MODELS``.
      optimizer: Of the run whose weights are scored: it decides where the table lies.
      mesh: Devices, over which the logits are split as the batch is. Without them each device has
        all of the table.
      partitioning: Of the run.
      negative_rate: Of the run: the share of the negative rows that it was trained on, for which
        the logits are corrected.
    """

    def score(weights, ids, values):
        return correct_logits(plain_logits(weights, ids, values), negative_rate)

    def plain_logits(weights, ids, values) -> Any:
        if optimizer is None or optimizer.rows is None or mesh is None or mesh.size == 1:
            variables = {"params": weights.params, "batch_stats": weights.batch_stats}
            return model.apply(variables, ids, values)
        dense, table = split_table(weights.params)
        field_dims = model.field_dims  # pyright: ignore[reportAttributeAccessIssue]
        access = create_table(total_rows(field_dims), mesh, partitioning)
        rows, _ = _looked_up(access, table, ids, field_dims)
        variables = {"params": dense, "batch_stats": weights.batch_stats}
        return model.apply(variables, rows, values, method="from_rows")

    split = None if mesh is None else NamedSharding(mesh, BATCH_SPEC)
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return jax.jit(score, out_shardings=split, compiler_options=compiler_options(model, platform))


def cut_learning_rate(state: TrainState, factor: float, floor_scale: float) -> TrainState:
    """The state with its learning rate multiplied by ``factor``, not below ``floor_scale``."""
    scale = jnp.maximum(state.rate_scale * factor, floor_scale)
    scale = jax.device_put(scale, state.rate_scale.sharding)
    return state.replace(rate_scale=scale)  # pyright: ignore[reportAttributeAccessIssue]
