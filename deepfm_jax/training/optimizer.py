"""Optimizers of dense parameters and table rows, created from the settings."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from deepfm_jax.embedding import ROW_OPTIMIZERS, RowOptimizer, kind_of
from deepfm_jax.errors import UserError
from deepfm_jax.models import Model
from deepfm_jax.training.dense_optimizers import check_linear, check_options, create_dense
from deepfm_jax.training.optimizer_settings import (
    OptimizerSettings,
    Penalties,
    RowSettings,
    as_options,
)
from deepfm_jax.training.parameter_groups import group_of
from deepfm_jax.training.table_path import TablePath, table_path
from deepfm_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The update of a step: penalties, then clipping, then the optimizers.

    L1 and L2 terms are added to the gradient before clipping and before an optimizer's moments, as
    in the published recipes; decoupled weight decay would be a different regularizer.

    Attributes:
      decay: ``(params, gradients) -> gradients`` of the parameters that ``dense`` moves, with
        their penalties added.
      clip_norm: Largest global norm of all gradients together; 0 for no clipping.
      dense: Moves all parameters on the dense path; on the sparse path, all except the table's.
      rows: Moves the touched rows of ``first_order`` weights and of an ``embedding``; None on the
        dense path.
      row_decay: ``(weights, gradients) -> gradients`` of touched rows, with the penalties of
        the arrays that ``rows`` does not penalize added.
      path: Path of the table, and the reason for it.
      has_frozen_rows: Whether the vectors of some rows are frozen; the train state marks them.
    """

    decay: Callable[[PyTree, PyTree], PyTree]
    clip_norm: float
    dense: optax.GradientTransformation
    rows: Mapping[str, RowOptimizer] | None
    row_decay: Callable[[PyTree, PyTree], PyTree]
    path: TablePath
    has_frozen_rows: bool = False

    def clip(self, grads: PyTree) -> PyTree:
        """Scales gradients down to a global norm of at most ``clip_norm``."""
        if not self.clip_norm:
            return grads
        return optax.clip_by_global_norm(self.clip_norm).update(grads, optax.EmptyState())[0]


def learning_rate_schedule(
    settings: OptimizerSettings, total_steps: int, peak: float | None = None
) -> optax.Schedule:
    """Learning rate by step, without the cuts of a plateau, which ``TrainState`` holds."""
    peak = settings.learning_rate if peak is None else peak
    if settings.schedule == "warmup_cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if settings.warmup_steps else peak,
            peak,
            settings.warmup_steps,
            max(total_steps, settings.warmup_steps + 1),
        )
    return optax.constant_schedule(peak)


def _rate(settings: OptimizerSettings, total_steps: int) -> optax.ScalarOrSchedule:
    """A number if the rate is constant but for the cuts: some optimizers take no schedule."""
    if settings.schedule == "warmup_cosine":
        return learning_rate_schedule(settings, total_steps)
    return settings.learning_rate


def create_for(
    settings: OptimizerSettings, total_steps: int, model: Model, batch: int
) -> Optimizer:
    """Calls ``create_optimizer`` on the path that suits a model and a batch size.

    Raises:
      UserError: see ``create_optimizer`` and ``table_path``.
    """
    return create_optimizer(settings, total_steps, table_path(settings, model, batch))


def create_optimizer(
    settings: OptimizerSettings, total_steps: int, path: TablePath | str
) -> Optimizer:
    """Creates the optimizer of a run whose table moves on ``path``.

    Raises:
      UserError: an optimizer or an option does not exist.
    """
    path = TablePath(path, "optimizer.table is set") if isinstance(path, str) else path
    options = as_options(settings.options)
    dense = create_dense(settings.name, options, _rate(settings, total_steps))
    if settings.schedule == "plateau":
        check_linear(settings.name, options)
    return Optimizer(
        decay=_decay(settings),
        clip_norm=settings.clip_norm,
        dense=dense,
        rows=_row_optimizers(settings, total_steps) if path.name == "sparse" else None,
        row_decay=_row_decay(settings),
        path=path,
    )


def row_settings(settings: OptimizerSettings) -> dict[str, tuple[str, RowSettings]]:
    """For ``embedding`` and ``first_order``: the key in the settings, and the resolved settings."""
    same = RowSettings(settings.name, settings.options, settings.learning_rate)
    vectors = _filled(settings.rows, same)
    first = _filled(settings.first_order, vectors)
    return {
        "embedding": ("optimizer.rows", vectors),
        "first_order": ("optimizer.first_order", first),
    }


def _filled(settings: RowSettings, fallback: RowSettings) -> RowSettings:
    """Fills settings that are not set from their fallback."""
    rate = settings.learning_rate or fallback.learning_rate
    if settings.name:
        return dataclasses.replace(settings, learning_rate=rate)
    return RowSettings(fallback.name, settings.options or fallback.options, rate)


def _row_optimizers(settings: OptimizerSettings, total_steps: int) -> dict[str, RowOptimizer]:
    found = {}
    for array, (where, of_array) in row_settings(settings).items():
        if of_array.name not in ROW_OPTIMIZERS:
            raise UserError(
                f"{where}.name={of_array.name!r} is not a row optimizer; use one of "
                f"{sorted(ROW_OPTIMIZERS)}, or optimizer.table='dense'"
            )
        kind = ROW_OPTIMIZERS[of_array.name]
        options = as_options(of_array.options)
        check_options(of_array.name, kind.create, options, where)
        rate: Any = learning_rate_schedule(settings, total_steps, of_array.learning_rate)
        if kind.has_own_schedule:
            if settings.schedule != "constant":
                raise UserError(
                    f"{where}.name={of_array.name!r} has its own schedule for each weight; "
                    f"set optimizer.schedule='constant' instead of {settings.schedule!r}"
                )
            rate = of_array.learning_rate
        if kind.has_penalties:
            l1, l2 = _lambdas(settings, _GROUP_OF_ARRAY[array])
            options = {"l1": l1, "l2": l2, **options}
        found[array] = kind.create(rate, **options)
    return found


_GROUP_OF_ARRAY = {"first_order": "first_order", "embedding": "table"}


def _lambdas(settings: OptimizerSettings, group: str) -> tuple[float, float]:
    """lambda_1 and lambda_2 of a parameter group."""

    def of(penalties: Penalties) -> float:
        value = getattr(penalties, group)
        return penalties.table if value is None else value

    return of(settings.l1), of(settings.l2)


def _row_decay(settings: OptimizerSettings) -> Callable[[PyTree, PyTree], PyTree]:
    kinds = {
        array: ROW_OPTIMIZERS.get(of_array.name)
        for array, (_, of_array) in row_settings(settings).items()
    }

    def decayed(array, weights, grads):
        kind = kinds[kind_of(array)]
        if kind is not None and kind.has_penalties:
            return grads
        return _penalized(*_lambdas(settings, _GROUP_OF_ARRAY[kind_of(array)]), weights, grads)

    def decay(weights, grads):
        return {array: decayed(array, weights[array], grad) for array, grad in grads.items()}

    return decay


def _penalized(l1: float, l2: float, weights: jax.Array, grads: jax.Array) -> jax.Array:
    """Gradient of loss + l1 |w| + (l2 / 2) w^2."""
    if l2:
        grads = grads + l2 * weights.astype(grads.dtype)
    return grads + l1 * jnp.sign(weights).astype(grads.dtype) if l1 else grads


def _decay(settings: OptimizerSettings) -> Callable[[PyTree, PyTree], PyTree]:
    def penalized(path, weights, grads):
        group = group_of(path)
        return grads if group is None else _penalized(*_lambdas(settings, group), weights, grads)

    return functools.partial(jax.tree_util.tree_map_with_path, penalized)
