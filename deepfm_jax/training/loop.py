"""A training run from its settings to its report."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from clu import metric_writers

from deepfm_jax.distributed import hosts
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints
from deepfm_jax.training.compute_dtype import print_choice, with_compute_dtype
from deepfm_jax.training.first_weights import Source, has_frozen_rows, open_source
from deepfm_jax.training.fresh_run import FreshRun
from deepfm_jax.training.pretraining import STAGE_FOLDER
from deepfm_jax.training.report import write_report
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import weights_shapes
from deepfm_jax.training.trainer import Trainer


def train(experiment: Experiment, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Trains to the end, resuming where ``workdir`` holds a checkpoint, and writes the report.

    A finished run goes on where ``loop.epochs`` or ``loop.patience`` now let it. With the schedule
    ``warmup_cosine`` its learning rate then jumps from 0 back up to where the cosine of all the
    epochs stands at that step, which is not what so many epochs at once would have been; with
    ``constant`` and ``plateau`` it is the same.

    ``workdir`` then holds ``config.json``, the encoder, the best and the last checkpoint,
    TensorBoard logs, ``results.json``, ``training.png`` and ``calibration.png``; a run with a stage
    before holds that stage's run in ``pretraining``.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: data not prepared, a wrong setting, a workdir of another run, or a training loss
        that is not finite.
    """
    experiment = _with_absolute_folder(experiment)
    # Everything that a user can have got wrong fails here, before the workdir is touched.
    hosts.check_same("configuration", _without_folder(experiment))
    experiment, choice = hosts.run_on_all(lambda: with_compute_dtype(experiment, [workdir]))
    print_choice(choice)
    data, trainer = hosts.run_on_all(lambda: _open(experiment, workdir))
    source = hosts.run_on_all(lambda: _source(trainer, data, workdir))
    hosts.check_same("prepared data set", data.fingerprint)
    hosts.check_same("source of first weights", "" if source is None else source.digest)
    hosts.run_on_primary(lambda: workdirs.claim(workdir, experiment, data.encoder))
    if experiment.optimizer.table == "auto" and hosts.is_primary():
        path = trainer.optimizer.path
        print(f"table: {path.name} path, since {path.reason}; {path.changes}")
    with Checkpoints(workdir) as checkpoints:
        state, progress = trainer.start(checkpoints, source)
        del source  # It may hold much memory.
        if not progress.finished:
            writer = _writer(pathlib.Path(workdir) / "tensorboard")
            state, progress = trainer.run(state, progress, checkpoints, writer)
            writer.close()
        assert progress.best_step is not None
        # Before the best weights come: two tables and the slots of one may not fit.
        del state
        best = checkpoints.restore_weights(progress.best_step, like=trainer.weights_layout())
    states = {split: trainer.evaluate(best, split) for split in ("valid", "test")}
    # Of the model: rows that fill up the last stripe are on the devices, and no parameters.
    params = weights_shapes(trainer.network).params
    path = trainer.optimizer.path
    found = {"table": {**path._asdict(), "changes": path.changes}}
    if choice is not None:
        found["compute_dtype"] = choice._asdict()
    return write_report(workdir, experiment, data, progress, params, states, found)


def check_runs(experiment: Experiment, workdirs_of_seeds: Mapping[int, pathlib.Path]) -> None:
    """Checks that an experiment can be trained with each of some seeds; trains and writes nothing.

    The weights are initialised abstractly, and those of the stage before too: what a model finds
    wrong with its hyperparameters it finds here.

    Args:
      experiment: Its own seed is not used.
      workdirs_of_seeds: The folder of each seed's run, which need not be there; at least one.

    Raises:
      UserError: what ``train`` would raise at its start; or a folder whose run has had other
        settings of the loop, such as epochs, than the experiment, which ``train`` would allow.
    """
    data, trainer = _open(experiment, next(iter(workdirs_of_seeds.values())))
    for seed, folder in workdirs_of_seeds.items():
        run = dataclasses.replace(experiment, seed=seed)
        workdirs.check(folder, run, data.encoder, same_loop=True)
        if workdirs.has_checkpoints(folder):
            trainer.check_progress(folder)
        elif run.first_stage is not None:
            workdirs.check(folder / STAGE_FOLDER, run.first_stage, data.encoder)
    fresh = [path for path in workdirs_of_seeds.values() if not workdirs.has_checkpoints(path)]
    # A source does not depend on the seed, and may be much to read.
    for folder in fresh[:1]:
        _source(trainer, data, folder)


def _open(experiment: Experiment, workdir: str | os.PathLike[str]) -> tuple[PreparedData, Trainer]:
    """The data, and what trains on them."""
    settings = experiment.data
    data = PreparedData(settings.name, settings.folder, settings.labels)
    return data, Trainer(experiment, data, has_frozen_rows(experiment, workdir))


def _source(trainer: Trainer, data: PreparedData, workdir: str | os.PathLike[str]) -> Source | None:
    """Where the first weights come from; None for the initialisers, or where a run has begun."""
    return open_source(
        FreshRun(
            trainer.experiment,
            trainer.network,
            data.encoder,
            trainer.optimizer,
            trainer.placement,
            workdir,
            lambda other: Trainer(other, data),
            train,
        )
    )


def _with_absolute_folder(experiment: Experiment) -> Experiment:
    """The experiment as it is stored: scoring may start from another directory."""
    folder = os.path.abspath(experiment.data.folder)
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, folder=folder))


def _without_folder(experiment: Experiment) -> str:
    """The settings that all hosts share; each may keep the data elsewhere."""
    settings = experiment.to_dict()
    settings["data"].pop("folder")
    return json.dumps(settings, sort_keys=True)


def _writer(folder: pathlib.Path) -> metric_writers.MetricWriter:
    if not hosts.is_primary():
        return metric_writers.MultiWriter([])
    return metric_writers.SummaryWriter(os.fspath(folder))
