"""Warm start: copies an earlier run's weights into the same model with larger vocabularies."""

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

# Hyperparameters that affect training and rounding but not the meaning of the weights.
_MAY_DIFFER = ("field_dims", "dropout", "init_std", "compute_dtype", "parent", "name")


class WarmStartSource:
    """The best weights of an earlier run."""

    digest = ""

    def __init__(self, run: FreshRun):
        """Checks that the earlier run has the same model.

        Raises:
          UserError: see ``earlier_model``.
        """
        settings = run.experiment
        assert settings.warm_start is not None
        self._run, self._folder = run, settings.warm_start
        name, model = settings.model["name"], run.network.model
        self._earlier = earlier_model(self._folder, name, model, run.encoder)

    def start(self, state: TrainState) -> TrainState:
        """Returns the state with the earlier weights."""
        run, folder = self._run, self._folder
        like = weights_layout(Network(self._earlier, run.network.head), run.placement)
        weights, frozen = restore_best(folder, like), restore_frozen(folder, like)
        how = (run.optimizer, run.network.model, self._earlier)
        return with_warm_start(state, *how, weights, run.placement.mesh, frozen)


def earlier_model(
    workdir: str | os.PathLike[str], name: str, model: Model, encoder: Encoder
) -> Model:
    """Builds the model of an earlier run and checks that its weights fit ``model``.

    Args:
      workdir: Folder of the earlier run.
      name: Name of the model that starts, as in ``MODELS``.
      model: The model that starts.
      encoder: Encoder of its data set.

    Raises:
      UserError: the folder holds no run, or the run has no checkpoint, another model, other
        hyperparameters, or an encoder whose ids mean something else in ``encoder``.
    """
    experiment, before = workdirs.read(workdir)
    setting = f"warm_start={os.fspath(workdir)}"
    if not workdirs.has_checkpoints(workdir):
        raise UserError(f"{setting}: the run has no checkpoint yet; train it first")
    if experiment.model["name"] != name:
        raise UserError(
            f"{setting} is a run of model {experiment.model['name']!r}, but this one is of {name!r}"
        )
    earlier = experiment.build_model(before)
    for field in dataclasses.fields(model):  # pyright: ignore[reportArgumentType]
        there, here = getattr(earlier, field.name, None), getattr(model, field.name, None)
        if field.name not in _MAY_DIFFER and there != here:
            raise UserError(
                f"{setting} has model.{field.name}={_plain(there)!r}, but this run has "
                f"model.{field.name}={_plain(here)!r}; weights can only be copied between equal "
                "models"
            )
    try:
        check_grown(before, encoder)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None
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
    """Copies the weights of an earlier model into a fresh state.

    Rows of the earlier model's table are copied to the new positions of their fields; rows of new
    values keep their initial values. All other parameters and batch norm's statistics are copied.
    Frozen rows stay frozen. Optimizer state starts anew: a new run has its own schedule, and with
    Adam's moments for old rows but none for new ones, the two would move at different rates.

    Args:
      state: A fresh state.
      optimizer: Its optimizer.
      model: Its model.
      earlier: See ``earlier_model``.
      weights: Weights of ``earlier``, laid out like the state's.
      mesh: Devices of both.
      frozen: Marks of the frozen rows of ``earlier`` (see ``checkpoint.restore_frozen``); the
        state's optimizer must have ``has_frozen_rows``.
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
    summary = f"{counts[0]:,} of {counts[1]:,} table rows and all other weights"
    if frozen:
        state = state.replace(frozen=copied(frozen, state.frozen))  # pyright: ignore[reportAttributeAccessIssue]
        count = sum(int(rows.sum()) for rows in state.frozen.values())
        summary += f"; {count:,} rows stay frozen"
    if hosts.is_primary():
        print(f"from warm start: {summary}")
    params = {**weights.params, "table": table}
    return started_from(state, optimizer, Weights(params, weights.batch_stats))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
