"""Weights of an earlier run, put into a model of the same kind whose vocabularies have grown."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from deepfm_jax.distributed import hosts
from deepfm_jax.embedding.resize import copy_rows, kept_runs
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.encoding.extension import check_grown
from deepfm_jax.errors import UserError
from deepfm_jax.models import Model
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import restore_best, restore_frozen
from deepfm_jax.training.fresh_run import FreshRun
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.state import TrainState, Weights, started_from, weights_layout

# What decides of a model's training and rounding, and not of what its weights mean.
_MAY_DIFFER = ("field_dims", "dropout", "init_std", "compute_dtype", "parent", "name")


class WarmStartSource:
    """The best weights of an earlier run."""

    digest = ""

    def __init__(self, run: FreshRun):
        """Checks that the earlier run is one of the same model.

        Raises:
          UserError: see ``earlier_model``.
        """
        settings = run.experiment
        assert settings.warm_start is not None
        self._run, self._folder = run, settings.warm_start
        name, model = settings.model["name"], run.network.model
        self._earlier = earlier_model(self._folder, name, model, run.encoder)

    def start(self, state: TrainState) -> TrainState:
        """The state with the earlier weights."""
        run, folder = self._run, self._folder
        like = weights_layout(Network(self._earlier, run.network.head), run.placement)
        weights, frozen = restore_best(folder, like), restore_frozen(folder, like)
        how = (run.optimizer, run.network.model, self._earlier)
        return with_warm_start(state, *how, weights, run.placement.mesh, frozen)


def earlier_model(
    workdir: str | os.PathLike[str], name: str, model: Model, encoder: Encoder
) -> Model:
    """The model of an earlier run, whose weights a model may start from.

    Args:
      workdir: Of the earlier run.
      name: Of the model that starts, as in ``MODELS``.
      model: The one that starts.
      encoder: Of its data.

    Raises:
      UserError: no run there, or one without a checkpoint, of another model or other
        hyperparameters, or of an encoder whose ids mean something else in ``encoder``.
    """
    experiment, before = workdirs.read(workdir)
    told = f"warm_start={os.fspath(workdir)}"
    if not workdirs.has_checkpoints(workdir):
        raise UserError(f"{told}: the run has no checkpoint yet; train it first")
    if experiment.model["name"] != name:
        raise UserError(
            f"{told}: is a run of model {experiment.model['name']!r}, and this one is of {name!r}"
        )
    earlier = experiment.build_model(before)
    for field in dataclasses.fields(model):  # pyright: ignore[reportArgumentType]
        there, here = getattr(earlier, field.name, None), getattr(model, field.name, None)
        if field.name not in _MAY_DIFFER and there != here:
            raise UserError(
                f"{told}: has model.{field.name}={_plain(there)!r}, and this run has "
                f"model.{field.name}={_plain(here)!r}; weights are taken over between equal "
                "ones alone"
            )
    try:
        check_grown(before, encoder)
    except UserError as error:
        raise UserError(f"{told}: {error}") from None
    return earlier


def with_warm_start(
    state: TrainState,
    optimizer: Optimizer,
    model: Model,
    earlier: Model,
    weights: Weights,
    mesh: Mesh,
    frozen: Mapping[str, jax.Array] | None = None,
) -> TrainState:
    """A state before its first step, with the weights of an earlier model.

    Rows of the table that the earlier model had are copied to where their fields begin now; those
    of new values keep what the initialiser gave them. All other parameters and batch norm's
    statistics are copied. Rows that were frozen stay so. What optimizers keep starts anew: a new
    run has its own schedule, and Adam's moments of old rows beside none of new ones would move the
    two at different rates.

    Args:
      state: A fresh one.
      optimizer: What moves it.
      model: Its model.
      earlier: See ``earlier_model``.
      weights: Of ``earlier``, laid out as the state's weights are.
      mesh: Devices of both.
      frozen: Rows of ``earlier`` that are frozen (see ``checkpoint.restore_frozen``); the state's
        optimizer must know of them.
    """
    there, here = (
        {name: rows for space in each.layout.spaces for name, rows, _ in space.arrays}
        for each in (earlier, model)
    )
    copied = functools.partial(
        copy_rows,
        rows=there,
        runs=kept_runs(earlier.layout, model.layout),
        mesh=mesh,
        striped=optimizer.rows is not None,
    )
    table = copied(weights.params["table"], state.weights.params["table"])
    counts = [max(rows.values()) for rows in (there, here)]
    told = f"{counts[0]:,} of {counts[1]:,} table rows and all other weights"
    if frozen:
        state = state.replace(frozen=copied(frozen, state.frozen))  # pyright: ignore[reportAttributeAccessIssue]
        count = sum(int(rows.sum()) for rows in state.frozen.values())
        told += f"; {count:,} rows stay frozen"
    if hosts.is_primary():
        print(f"from warm start: {told}")
    params = {**weights.params, "table": table}
    return started_from(state, optimizer, Weights(params, weights.batch_stats))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
