"""The train step and the scoring step, jitted."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from deepfm_jax.distributed.partitioning import BATCH_SPEC, Placement
from deepfm_jax.embedding import RowUpdate, TableAccess
from deepfm_jax.metrics.calibration import correct_logits
from deepfm_jax.training.compiling import compiler_options, warn_of_slow_scatters
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.state import TrainState, Weights, split_table, state_shardings
from deepfm_jax.typing import PyTree

Batch: TypeAlias = Mapping[str, Any]
Metrics: TypeAlias = dict[str, jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(network: Network, optimizer: Optimizer, placement: Placement) -> TrainStep:
    """Creates ``train_step(state, batch) -> (state, metrics)``, jitted, with the state donated.

    ``Network`` describes a batch; ``metrics`` has the ``loss`` of the batch before the update,
    without penalties. The optimizer determines the path of the table; the model does not know it.
    The step has its own compiler options (``compiling``), so JAX refuses it inside another
    ``jax.jit``.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if optimizer.rows is None:
            return _dense_step(network, optimizer, state, batch)
        access = TableAccess(network.model.layout, placement)
        return _sparse_step(network, optimizer, access, state, batch)

    warn_of_slow_scatters(placement.platform)
    # Without fixed output shardings the compiler may choose others and recompile the second call.
    shardings = state_shardings(network, optimizer, placement)
    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler_options(network.model, placement.platform),
    )


def _dense_step(network: Network, optimizer: Optimizer, state: TrainState, batch: Batch):
    """Updates all parameters by dense gradients: reads and writes every row of the table."""

    def loss_fn(params):
        return network.loss(params, state.batch_stats, batch, _dropout_key(state))

    (loss, batch_stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    grads = optimizer.decay(state.params, grads)
    grads = optimizer.clip(_without_frozen(state, grads))
    params, opt_state = _moved(optimizer, state, state.params, grads)
    return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=state.step + 1, params=params, opt_state=opt_state, batch_stats=batch_stats
    ), {"loss": loss}


def _sparse_step(
    network: Network, optimizer: Optimizer, access: TableAccess, state: TrainState, batch: Batch
):
    """Updates only the touched rows of the table, gathered outside ``grad``, written in place."""
    assert optimizer.rows is not None
    dense, table = split_table(state.params)
    rows, routes = access.lookup(table, batch["ids"])

    def loss_fn(dense, rows):
        return network.loss(dense, state.batch_stats, batch, _dropout_key(state), rows)

    (loss, batch_stats), (grads, row_grads) = jax.value_and_grad(
        loss_fn, argnums=(0, 1), has_aux=True
    )(dense, rows)
    update = RowUpdate(
        step=state.step,
        scale=state.rate_scale,
        key=_key(state),
        optimizers=optimizer.rows,
        decay=optimizer.row_decay,
        frozen=state.frozen,
    )
    table, row_state, scratch, grads = access.update(
        update,
        optimizer.clip_norm,
        table,
        state.row_state,
        state.scratch,
        routes,
        row_grads,
        optimizer.decay(dense, grads),
    )
    dense, opt_state = _moved(optimizer, state, dense, grads)
    return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
        step=state.step + 1,
        params={**dense, "table": table},
        batch_stats=batch_stats,
        opt_state=opt_state,
        row_state=row_state,
        scratch=scratch,
    ), {"loss": loss}


def _without_frozen(state: TrainState, grads: PyTree) -> PyTree:
    """Sets the gradients or updates of frozen rows to 0."""
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
    updates: Any = jax.tree.map(lambda update: state.rate_scale * update, updates)
    if state.frozen and "table" in updates:  # Weight decay moves rows without a gradient too.
        updates = _without_frozen(state, updates)
    return optax.apply_updates(params, updates), opt_state


def _key(state: TrainState) -> jax.Array:
    """Random key of this step; dropout and each array's rounding fold in their own numbers."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)


def _dropout_key(state: TrainState) -> jax.Array:
    return jax.random.fold_in(_key(state), 0)


def make_score_step(
    network: Network, placement: Placement | None = None, negative_rate: float = 1.0
) -> Callable[[Weights, Batch], jax.Array]:
    """Creates ``score(weights, batch) -> logits [B, T]``, jitted.

    Like the train step, it cannot be called inside another ``jax.jit``.

    Args:
      network: Network to score with.
      placement: Layout of the weights; the logits are split over its devices like the batch. None
        for weights that are replicated on every device.
      negative_rate: Share of the negative examples on which the weights were trained, for which the
        logits are corrected.
    """

    def score(weights: Weights, batch: Batch) -> Any:
        params, rows = weights.params, None
        if placement is not None and placement.stripes > 1:
            params, table = split_table(params)
            rows, _ = TableAccess(network.model.layout, placement).lookup(table, batch["ids"])
        logits = network.logits(params, weights.batch_stats, batch, rows)
        return correct_logits(logits, negative_rate)

    split = None if placement is None else NamedSharding(placement.mesh, BATCH_SPEC)
    platform = jax.default_backend() if placement is None else placement.platform
    options = compiler_options(network.model, platform)
    return jax.jit(score, out_shardings=split, compiler_options=options)


def cut_learning_rate(state: TrainState, factor: float, floor_scale: float) -> TrainState:
    """Multiplies the learning rate's scale by ``factor``, but not below ``floor_scale``."""
    scale = jnp.maximum(state.rate_scale * factor, floor_scale)
    scale = jax.device_put(scale, state.rate_scale.sharding)
    return state.replace(rate_scale=scale)  # pyright: ignore[reportAttributeAccessIssue]
