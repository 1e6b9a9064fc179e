"""From optimizer settings to what moves dense parameters and table rows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from deepfm_jax.embedding import ROW_OPTIMIZERS, RowOptimizer
from deepfm_jax.errors import UserError
from deepfm_jax.features import slot_counts, total_rows
from deepfm_jax.training.settings import OptimizerSettings
from deepfm_jax.typing import PyTree

_OPTIMIZERS = {"adam": optax.adam, "adagrad": optax.adagrad, "sgd": optax.sgd}

# Rows of the table for each row that a batch reads, below which moving all of them is faster than
# finding out which were touched: where the lines of ours_adam and ours_dense_adam cross in
# experiments/benchmarks/train_step.py.
DENSE_ROWS_PER_READ = 1.0


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How a step moves parameters: decay, then clipping, then the update.

    L1 and L2 terms are added to the gradient before clipping and before an optimizer's moments, as
    the published recipes do it; decoupled weight decay would be another regulariser.

    Attributes:
      decay: ``(params, gradients) -> gradients`` of what ``dense`` moves, with their penalties.
      clip_norm: Largest global norm of all gradients together; 0 for no clipping.
      dense: Moves all parameters on the dense path, all but the table's on the sparse path.
      rows: Moves the touched rows of each array of the table; None on the dense path.
      row_decay: ``(weights, gradients) -> gradients`` of touched rows, with the penalties of
        those arrays that ``rows`` does not penalise itself.
      has_frozen_rows: Whether some rows' vectors are never moved; the train state says which.
    """

    decay: Callable[[PyTree, PyTree], PyTree]
    clip_norm: float
    dense: optax.GradientTransformation
    rows: Mapping[str, RowOptimizer] | None
    row_decay: Callable[[PyTree, PyTree], PyTree]
    has_frozen_rows: bool = False

    def clip(self, grads: PyTree) -> PyTree:
        """Gradients scaled down to a global norm of at most ``clip_norm``."""
        if not self.clip_norm:
            return grads
        return optax.clip_by_global_norm(self.clip_norm).update(grads, optax.EmptyState())[0]


def is_table(path: tuple) -> bool:
    """Whether a parameter's path lies in the embedding table."""
    return any(getattr(key, "key", None) == "table" for key in path)


def table_path(settings: OptimizerSettings, rows: int, reads: int) -> str:
    """``"dense"`` or ``"sparse"``: the setting, or for ``"auto"`` the faster one.

    A row optimizer that is named asks for the sparse path. Otherwise the dense path is taken up to
    ``DENSE_ROWS_PER_READ`` table rows for each row read.

    Args:
      settings: Of the run.
      rows: V, rows of the table.
      reads: B S, rows that a batch reads.
    """
    if settings.table != "auto":
        return settings.table
    if settings.row_optimizer or settings.first_order_optimizer:
        return "sparse"
    return "dense" if rows <= DENSE_ROWS_PER_READ * reads else "sparse"


def learning_rate_schedule(
    settings: OptimizerSettings, total_steps: int, peak: float | None = None
) -> optax.Schedule:
    """Learning rate by step; a plateau's cuts are the train state's (see ``TrainState``)."""
    peak = settings.learning_rate if peak is None else peak
    if settings.schedule == "warmup_cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if settings.warmup_steps else peak,
            peak,
            settings.warmup_steps,
            max(total_steps, settings.warmup_steps + 1),
        )
    return optax.constant_schedule(peak)


def create_optimizer(settings: OptimizerSettings, total_steps: int, path: str) -> Optimizer:
    """The optimizer of a run whose table moves on ``path`` (see ``table_path``)."""
    dense = _OPTIMIZERS[settings.name](learning_rate_schedule(settings, total_steps))
    return Optimizer(
        decay=_decay(settings),
        clip_norm=settings.clip_norm,
        dense=dense,
        rows=_row_optimizers(settings, total_steps) if path == "sparse" else None,
        row_decay=_row_decay(settings),
    )


def _names(settings: OptimizerSettings) -> dict[str, str]:
    vectors = settings.row_optimizer or settings.name
    return {"first_order": settings.first_order_optimizer or vectors, "embedding": vectors}


def _penalties(settings: OptimizerSettings) -> dict[str, tuple[float, float]]:
    """(lambda_1, lambda_2) of each array of the table."""
    l1, l2 = settings.embedding_l1, settings.embedding_l2
    own_l1, own_l2 = settings.first_order_l1, settings.first_order_l2
    first_order = (l1 if own_l1 is None else own_l1, l2 if own_l2 is None else own_l2)
    return {"first_order": first_order, "embedding": (l1, l2)}


def _row_optimizers(settings: OptimizerSettings, total_steps: int) -> dict[str, RowOptimizer]:
    rate = settings.row_learning_rate or settings.learning_rate
    rates = {"first_order": settings.first_order_learning_rate or rate, "embedding": rate}
    penalties = _penalties(settings)

    def create(array: str, name: str) -> RowOptimizer:
        if name == "ftrl":
            l1, l2 = penalties[array]
            return ROW_OPTIMIZERS[name](rates[array], l1=l1, l2=l2)
        return ROW_OPTIMIZERS[name](learning_rate_schedule(settings, total_steps, rates[array]))

    return {array: create(array, name) for array, name in _names(settings).items()}


def _row_decay(settings: OptimizerSettings) -> Callable[[PyTree, PyTree], PyTree]:
    names, penalties = _names(settings), _penalties(settings)

    def decay(weights, grads):
        return {
            array: grad
            if names[array] == "ftrl"
            else _penalised(*penalties[array], weights[array], grad)
            for array, grad in grads.items()
        }

    return decay


def _penalised(l1: float, l2: float, weights: jax.Array, grads: jax.Array) -> jax.Array:
    """The gradient of loss + l1 |w| + (l2 / 2) w^2."""
    if l2:
        grads = grads + l2 * weights.astype(grads.dtype)
    return grads + l1 * jnp.sign(weights).astype(grads.dtype) if l1 else grads


def _decay(settings: OptimizerSettings) -> Callable[[PyTree, PyTree], PyTree]:
    penalties = _penalties(settings)

    def penalised(path, weights, grads):
        name = str(getattr(path[-1], "key", ""))
        if is_table(path):
            return _penalised(*penalties[name], weights, grads)
        return _penalised(0.0, settings.dense_l2, weights, grads) if "kernel" in name else grads

    return functools.partial(jax.tree_util.tree_map_with_path, penalised)


def create_for(settings: OptimizerSettings, total_steps: int, model: Any, batch: int) -> Optimizer:
    """``create_optimizer`` on the path that suits a model and a batch size.

    Raises:
      UserError: the dense path was asked for a table in bfloat16.
    """
    if model.table_dtype == "bfloat16":
        if settings.table == "dense":
            raise UserError(
                "model.table_dtype='bfloat16' needs optimizer.table='sparse': dense updates would "
                "be rounded to nearest, which loses most of them"
            )
        return create_optimizer(settings, total_steps, "sparse")
    reads = batch * sum(slot_counts(model.field_dims))
    path = table_path(settings, total_rows(model.field_dims), reads)
    return create_optimizer(settings, total_steps, path)
