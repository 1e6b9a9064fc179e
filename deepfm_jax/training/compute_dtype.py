"""``compute_dtype="auto"`` of a run: chosen once, when the run begins, and kept with it."""

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
    """The experiment with a dtype in place of ``"auto"``, and the choice; None where it is set.

    A run that has begun in one of the folders keeps what it began with, on whatever machine it goes
    on: other products would make other weights. A run that begins takes what suits the devices of
    the first process (see ``layers.resolve_compute_dtype``).

    Args:
      experiment: Its model's ``compute_dtype``, and that of the stage before, may be ``"auto"``.
      folders: Workdirs of the run, or of all the runs that must have one choice.

    Raises:
      UserError: a workdir whose configuration cannot be read.
    """
    stage = experiment.pretraining
    models = [experiment.model] if stage is None else [experiment.model, stage.model]
    if not any(model.get(_KEY) == "auto" for model in models):
        return experiment, None
    choice = _begun(folders) or _of_first_process()
    if stage is not None:
        stage = dataclasses.replace(stage, model=_chosen(stage.model, choice))
    model = _chosen(experiment.model, choice)
    return dataclasses.replace(experiment, model=model, pretraining=stage), choice


def print_choice(choice: ComputeDtype | None, prefix: str = "") -> None:
    """Says in the first process what ``"auto"`` became; nothing where the dtype is set."""
    if choice is not None and hosts.is_primary():
        print(f"{prefix}compute_dtype: {choice.name}, since {choice.reason}")


def _begun(folders: Iterable[str | os.PathLike[str]]) -> ComputeDtype | None:
    """What a run in one of the folders began with."""
    for folder in folders:
        if not workdirs.has_config(folder):
            continue
        begun = workdirs.read_experiment(folder)
        for model in (begun.model, begun.pretraining.model if begun.pretraining else {}):
            if _KEY in model:
                there = f"the run in {pathlib.Path(folder)} began with it"
                return ComputeDtype(model[_KEY], there)
    return None


def _of_first_process() -> ComputeDtype:
    choice = resolve_compute_dtype("auto")
    (is_bfloat16,) = hosts.from_primary(np.array([choice.name == "bfloat16"], np.int32))
    name = "bfloat16" if is_bfloat16 else "float32"
    return choice if name == choice.name else ComputeDtype(name, "the first process takes it")


def _chosen(model: Mapping[str, Any], choice: ComputeDtype) -> Mapping[str, Any]:
    return {**model, _KEY: choice.name} if model.get(_KEY) == "auto" else model
