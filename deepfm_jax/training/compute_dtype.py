"""Resolution of ``compute_dtype="auto"``: chosen once, when a run begins, and kept with the run."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deepfm_jax.distributed import hosts
from deepfm_jax.layers import ComputeDtype, resolve_compute_dtype
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.settings import Experiment

_KEY = "compute_dtype"


def with_compute_dtype(
    experiment: Experiment, folders: Iterable[str | os.PathLike[str]]
) -> tuple[Experiment, ComputeDtype | None]:
    """Replaces ``"auto"`` by a dtype; also returns the choice, None if no model asks for one.

    A run that has begun in one of the folders keeps its dtype, whatever machine it continues on,
    because another precision would give other weights. A fresh run uses the dtype that suits the
    devices of the primary process (see ``layers.resolve_compute_dtype``).

    Args:
      experiment: Its model and its pretraining stage may have ``compute_dtype="auto"``.
      folders: Workdirs of the run, or of all the runs that must share one choice.

    Raises:
      UserError: the configuration of a workdir cannot be read.
    """
    stage = experiment.pretraining
    models = [experiment.model] if stage is None else [experiment.model, stage.model]
    if not any(model.get(_KEY) == "auto" for model in models):
        return experiment, None
    choice = _of_begun_run(folders) or _of_primary_process()
    if stage is not None:
        stage = dataclasses.replace(stage, model=_resolved(stage.model, choice))
    model = _resolved(experiment.model, choice)
    return dataclasses.replace(experiment, model=model, pretraining=stage), choice


def print_choice(choice: ComputeDtype | None, prefix: str = "") -> None:
    """Prints the choice in the primary process; does nothing if the dtype is set explicitly."""
    if choice is not None and hosts.is_primary():
        print(f"{prefix}compute_dtype: {choice.name}, since {choice.reason}")


def _of_begun_run(folders: Iterable[str | os.PathLike[str]]) -> ComputeDtype | None:
    """The dtype with which a run in one of the folders began; None if there is no such run."""
    for folder in folders:
        if not workdirs.has_config(folder):
            continue
        begun = workdirs.read_experiment(folder)
        for model in (begun.model, begun.pretraining.model if begun.pretraining else {}):
            if _KEY in model:
                there = f"the run in {pathlib.Path(folder)} began with it"
                return ComputeDtype(model[_KEY], there)
    return None


def _of_primary_process() -> ComputeDtype:
    choice = resolve_compute_dtype("auto")
    (is_bfloat16,) = hosts.from_primary(np.array([choice.name == "bfloat16"], np.int32))
    name = "bfloat16" if is_bfloat16 else "float32"
    return choice if name == choice.name else ComputeDtype(name, "the primary process chose it")


def _resolved(model: Mapping[str, Any], choice: ComputeDtype) -> Mapping[str, Any]:
    return {**model, _KEY: choice.name} if model.get(_KEY) == "auto" else model
