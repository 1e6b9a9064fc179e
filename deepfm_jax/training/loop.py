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
    """Trains to the end, resuming if ``workdir`` holds a checkpoint, and writes the report.

    A finished run continues if ``loop.epochs`` or ``loop.patience`` now allow it. With the schedule
    ``warmup_cosine``, its learning rate then jumps from 0 to the value of the longer cosine at that
    step, so the result differs from that of one run of as many epochs; with ``constant`` and
    ``plateau`` it is the same.

    ``workdir`` then holds ``config.json``, the encoder, the best and the last checkpoint,
    TensorBoard logs, ``results.json``, ``training.png`` and ``calibration.png``; the run of a
    pretraining stage is in ``pretraining``.

    Returns:
      The content of ``results.json``.

    Raises:
      UserError: the data are not prepared, a setting is wrong, the workdir holds another run, or
        the training loss is not finite.
    """
    experiment = _with_absolute_folder(experiment)
    # Everything that a user can get wrong fails here, before the workdir is touched.
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
        # Freed before the best weights are restored: two tables and optimizer state may not fit.
        del state
        best = checkpoints.restore_weights(progress.best_step, like=trainer.weights_layout())
    states = {split: trainer.evaluate(best, split) for split in ("valid", "test")}
    # The model's own shapes: rows that pad the last stripe are not parameters.
    params = weights_shapes(trainer.network).params
    path = trainer.optimizer.path
    found = {"table": {**path._asdict(), "changes": path.changes}}
    if choice is not None:
        found["compute_dtype"] = choice._asdict()
    return write_report(workdir, experiment, data, progress, params, states, found)


def check_runs(experiment: Experiment, workdirs_of_seeds: Mapping[int, pathlib.Path]) -> None:
    """Checks that an experiment can be trained with each of some seeds; trains and writes nothing.

    The weights are initialized abstractly, including those of the pretraining stage, so a model
    rejects wrong hyperparameters here.

    Args:
      experiment: The experiment; its own seed is not used.
      workdirs_of_seeds: The folder of each seed's run, which need not exist; at least one.

    Raises:
      UserError: ``train`` would raise it at its start; or the run in a folder has other settings of
        the loop, such as epochs, which ``train`` would allow.
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
    # A source does not depend on the seed, and may be large.
    for folder in fresh[:1]:
        _source(trainer, data, folder)


def _open(experiment: Experiment, workdir: str | os.PathLike[str]) -> tuple[PreparedData, Trainer]:
    """Opens the data and the trainer."""
    settings = experiment.data
    data = PreparedData(settings.name, settings.folder, settings.labels)
    return data, Trainer(experiment, data, has_frozen_rows(experiment, workdir))


def _source(trainer: Trainer, data: PreparedData, workdir: str | os.PathLike[str]) -> Source | None:
    """Opens the source of the first weights; None for initializers, or if the run has begun."""
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
    """Makes the data folder absolute, because scoring may start from another directory."""
    folder = os.path.abspath(experiment.data.folder)
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, folder=folder))


def _without_folder(experiment: Experiment) -> str:
    """The settings that all hosts must share; each may keep the data in another folder."""
    settings = experiment.to_dict()
    settings["data"].pop("folder")
    return json.dumps(settings, sort_keys=True)


def _writer(folder: pathlib.Path) -> metric_writers.MetricWriter:
    if not hosts.is_primary():
        return metric_writers.MultiWriter([])
    return metric_writers.SummaryWriter(os.fspath(folder))
