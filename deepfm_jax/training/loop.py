"""The training loop: epochs of steps, evaluations, checkpoints, and an end."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
from clu import metric_writers
from tqdm import tqdm

from deepfm_jax.distributed import hosts
from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh, process_rows
from deepfm_jax.errors import PreemptedError, UserError
from deepfm_jax.heads import OneTask
from deepfm_jax.input.pipeline import PreparedData, prefetch_to_device
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints, Progress, restore_best, restore_frozen
from deepfm_jax.training.compute_dtype import print_choice, with_compute_dtype
from deepfm_jax.training.evaluation import evaluate
from deepfm_jax.training.loss_log import LossLog
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.pretrained_vectors import (
    FirstVectors,
    digest,
    read_first_vectors,
    with_first_vectors,
)
from deepfm_jax.training.pretraining import shared_parameters, with_pretrained
from deepfm_jax.training.report import write_report
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import (
    TrainState,
    Weights,
    create_state,
    weights_layout,
    weights_shapes,
)
from deepfm_jax.training.step import cut_learning_rate, make_score_step, make_train_step
from deepfm_jax.training.waiting import TimedBatches
from deepfm_jax.training.warm_start import earlier_model, has_frozen_rows, with_warm_start

# Gives a fresh state the weights of another run.
_TakeOver: TypeAlias = Callable[[TrainState], TrainState]


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
    # Everything that a user can have got wrong fails here, before the workdir is touched.
    hosts.check_same("configuration", _without_folder(experiment))
    experiment, choice = hosts.together(lambda: with_compute_dtype(experiment, [workdir]))
    print_choice(choice)
    data, trainer, first = hosts.together(lambda: _opened(experiment, workdir))
    earlier = hosts.together(lambda: trainer.earlier_model(workdir))
    vectors = hosts.together(lambda: trainer.first_vectors(workdir))
    hosts.check_same("prepared data set", data.fingerprint)
    hosts.check_same("pretrained_vectors", digest(vectors))
    hosts.on_first(lambda: workdirs.claim(workdir, experiment, data.encoder))
    with Checkpoints(workdir) as checkpoints:
        take_over = None
        if first is not None and checkpoints.last_step is None:
            folder = pathlib.Path(workdir) / "pretraining"
            train(first.experiment, folder)
            take_over = functools.partial(
                trainer.with_stage_before, folder=folder, model=first.model
            )
        elif earlier is not None and checkpoints.last_step is None:
            take_over = functools.partial(trainer.with_earlier, model=earlier)
        elif vectors and checkpoints.last_step is None:
            take_over = functools.partial(trainer.with_first_vectors, first=vectors)
        state, progress = trainer.start(checkpoints, take_over)
        del take_over, vectors  # They may be large.
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
    params = weights_shapes(trainer.model).params
    return write_report(workdir, experiment, data, progress, params, states, choice)


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
    data, trainer, _ = _opened(experiment, next(iter(workdirs_of_seeds.values())))
    for seed, folder in workdirs_of_seeds.items():
        run = dataclasses.replace(experiment, seed=seed)
        workdirs.check(folder, run, data.encoder, same_loop=True)
        if workdirs.has_checkpoints(folder):
            trainer.check_progress(folder)
        elif run.first_stage is not None:
            workdirs.check(folder / "pretraining", run.first_stage, data.encoder)
    fresh = [path for path in workdirs_of_seeds.values() if not workdirs.has_checkpoints(path)]
    # Neither depends on the seed, and vectors may be many to read.
    for folder in fresh[:1]:
        trainer.earlier_model(folder)
        trainer.first_vectors(folder)


def _opened(
    experiment: Experiment, workdir: str | os.PathLike[str]
) -> "tuple[PreparedData, _Trainer, _Trainer | None]":
    """The data, what trains on them, and what trains the stage before."""
    settings = experiment.data
    data = PreparedData(settings.name, settings.folder, settings.label)
    trainer = _Trainer(experiment, data, has_frozen_rows(experiment, workdir))
    first_stage = experiment.first_stage
    first = None if first_stage is None else _Trainer(first_stage, data)
    if first is not None:
        trainer.shared_with(first.model)
    return data, trainer, first


def _without_folder(experiment: Experiment) -> str:
    """The settings that all hosts share; each may keep the data elsewhere."""
    settings = experiment.to_dict()
    settings["data"].pop("folder")
    return json.dumps(settings, sort_keys=True)


def _writer(folder: pathlib.Path) -> metric_writers.MetricWriter:
    if not hosts.is_first():
        return metric_writers.MultiWriter([])
    return metric_writers.SummaryWriter(os.fspath(folder))


class _Trainer:
    """The compiled steps of a run and the data they read; holds nothing that training changes."""

    def __init__(self, experiment: Experiment, data: PreparedData, frozen_rows: bool = False):
        self.experiment = experiment
        self._loop = experiment.loop
        self._settings = experiment.optimizer
        self._seed = experiment.seed
        self._data = data
        self._partitioning = experiment.partitioning
        self._mesh = create_mesh(replicas=self._partitioning.replicas)
        self._batch_sharding = batch_sharding(self._mesh, self._loop.batch_size)
        self._eval_sharding = batch_sharding(self._mesh, self._loop.eval_batch_size)
        self._negative_rate = experiment.data.negative_rate
        self._rows_per_epoch = data.rows("train", self._negative_rate)
        self._steps_per_epoch = -(-self._rows_per_epoch // self._loop.batch_size)
        self.model = experiment.build_model(data.encoder)
        total_steps = self._loop.epochs * self._steps_per_epoch
        optimizer = create_for(experiment.optimizer, total_steps, self.model, self._loop.batch_size)
        self._optimizer = dataclasses.replace(optimizer, has_frozen_rows=frozen_rows)
        where = (self._mesh, self._partitioning)
        self._step = make_train_step(self.model, self._optimizer, OneTask(), *where)
        self._score = make_score_step(self.model, self._optimizer, *where, self._negative_rate)
        count = min(self._loop.evaluations_per_epoch, self._steps_per_epoch)
        self._evaluation_batches = {
            math.ceil(self._steps_per_epoch * (i + 1) / count) for i in range(count)
        }

    def start(
        self, checkpoints: Checkpoints, take_over: _TakeOver | None
    ) -> tuple[TrainState, Progress]:
        """A fresh state, with the weights that it takes over, or that of the last checkpoint."""
        state = create_state(
            self.model, self._optimizer, self._seed, self._mesh, self._partitioning
        )
        last = checkpoints.last_step
        if last is None:
            if take_over is not None:
                state = take_over(state)
            streams = self._loop.streams or jax.process_count()
            return state, Progress(fingerprint=self._data.fingerprint, streams=streams)
        progress = checkpoints.progress(last)
        self._check_rows(progress)
        # The end came from settings that may have changed since (epochs, patience).
        progress.finished = self._is_finished(progress)
        if hosts.is_first():
            print(f"resuming at step {last} (epoch {progress.epoch + 1}, batch {progress.batch})")
        return checkpoints.restore(last, like=state), progress

    def check_progress(self, workdir: str | os.PathLike[str]) -> None:
        """Checks that the run in ``workdir`` read these rows, and not for more than its epochs.

        Raises:
          UserError: it did not.
        """
        with Checkpoints(workdir) as checkpoints:
            last = checkpoints.last_step
            assert last is not None
            progress = checkpoints.progress(last)
        self._check_rows(progress)
        # The configuration of a run may have been changed by a later start.
        if progress.epoch > self._loop.epochs:
            raise UserError(
                f"workdir {workdir} holds a run of {progress.epoch} epochs, and this one has "
                f"loop.epochs={self._loop.epochs}; choose another --workdir, or set "
                f"loop.epochs={progress.epoch}"
            )

    def _check_rows(self, progress: Progress) -> None:
        if progress.fingerprint != self._data.fingerprint:
            raise UserError(
                "the workdir's checkpoint was trained on other rows than the prepared data set "
                "holds now; choose another --workdir"
            )

    def with_stage_before(
        self, state: TrainState, folder: str | os.PathLike[str], model: nn.Module
    ) -> TrainState:
        """A fresh state with the parameters that it shares with the stage run in ``folder``."""
        weights = restore_best(folder, self.weights_layout(model))
        return with_pretrained(state, self._optimizer, weights, self.shared_with(model))

    def earlier_model(self, workdir: str | os.PathLike[str]) -> nn.Module | None:
        """The model that this run starts from; None for none, or where ``workdir`` has begun.

        Raises:
          UserError: see ``warm_start.earlier_model``.
        """
        folder = self.experiment.warm_start
        if folder is None or workdirs.has_checkpoints(workdir):
            return None
        return earlier_model(folder, self.experiment.model["name"], self.model, self._data.encoder)

    def with_earlier(self, state: TrainState, model: nn.Module) -> TrainState:
        """A fresh state with the best weights of the earlier run."""
        assert self.experiment.warm_start is not None
        before, like = self.experiment.warm_start, self.weights_layout(model)
        weights, frozen = restore_best(before, like), restore_frozen(before, like)
        how = (self._optimizer, self.model, model)
        return with_warm_start(state, *how, weights, self._mesh, frozen)

    def first_vectors(self, workdir: str | os.PathLike[str]) -> tuple[FirstVectors, ...]:
        """What rows of the table start from; nothing where ``workdir`` has begun.

        Raises:
          UserError: see ``pretrained_vectors.read_first_vectors``.
        """
        if workdirs.has_checkpoints(workdir):
            return ()
        settings = self.experiment.pretrained_vectors
        return read_first_vectors(settings, self.model, self._data.encoder)

    def with_first_vectors(self, state: TrainState, first: tuple[FirstVectors, ...]) -> TrainState:
        """A fresh state with what ``first_vectors`` gave."""
        return with_first_vectors(state, self._optimizer, first, self._mesh)

    def weights_layout(self, model: nn.Module | None = None) -> Weights:
        """Shapes, dtypes and shardings of the weights, without arrays.

        Args:
          model: Another model whose weights are to lie as this run's do.
        """
        model = model or self.model
        return weights_layout(model, self._optimizer, self._mesh, self._partitioning)

    def shared_with(self, model: nn.Module) -> set[tuple]:
        """Paths of the parameters that another model can give to this run's.

        Raises:
          UserError: there are none.
        """
        return shared_parameters(weights_shapes(self.model), weights_shapes(model))

    def evaluate(self, weights: Weights, split: str) -> BinaryMetrics:
        """Metrics of the model on all rows of a split."""
        size = self._loop.eval_batch_size
        batches = self._data.batches(
            split,
            size,
            streams=jax.process_count(),
            part=process_rows(self._eval_sharding, size),
            groups=True,
        )
        return evaluate(self._score, weights, batches, self._eval_sharding)

    def run(
        self, state: TrainState, progress: Progress, checkpoints: Checkpoints, writer
    ) -> tuple[TrainState, Progress]:
        """Trains until the last epoch or until patience ends."""
        while not progress.finished:
            state = self._run_epoch(state, progress, checkpoints, writer)
        return state, progress

    def _run_epoch(self, state, progress, checkpoints, writer) -> TrainState:
        batches = self._data.batches(
            "train",
            self._loop.batch_size,
            seed=self._seed,
            epoch=progress.epoch,
            start_batch=progress.batch,
            streams=progress.streams,
            part=process_rows(self._batch_sharding, self._loop.batch_size),
            negative_rate=self._negative_rate,
        )
        log = LossLog(self._loop.log_steps, progress, writer)
        rows_left = self._rows_per_epoch - progress.batch * self._loop.batch_size
        with tqdm(
            desc=f"epoch {progress.epoch + 1}/{self._loop.epochs}",
            total=self._rows_per_epoch,
            initial=progress.batch * self._loop.batch_size,
            unit=" rows",
            unit_scale=True,
            mininterval=0.5,
            disable=not hosts.is_first(),
        ) as bar:
            timed = TimedBatches(prefetch_to_device(batches, self._batch_sharding))
            for step, batch in enumerate(timed, start=int(state.step) + 1):
                state, metrics = self._step(state, batch)
                timed.started(metrics["loss"])
                rows = min(self._loop.batch_size, rows_left)
                rows_left -= rows
                progress.batch += 1
                log.add(step, metrics["loss"], rows, timed.waited)
                bar.update(rows)
                waited = progress.wait_share or 0.0
                bar.set_postfix(loss=f"{log.latest:.4f}", wait=f"{waited:.0%}", refresh=False)
                stop = hosts.is_asked_to_stop(step)
                if progress.batch in self._evaluation_batches:
                    log.flush(step)
                    state = self._validate(state, progress, checkpoints, writer, bar)
                    log.restart_clock()
                    if progress.finished:
                        break
                elif stop or progress.batch % self._loop.checkpoint_steps == 0:
                    log.flush(step)
                    checkpoints.save(state, progress)
                    log.restart_clock()
                if stop:
                    raise PreemptedError(
                        f"the scheduler asked to stop; step {step} is saved, and a new start on "
                        "the same workdir goes on from there"
                    )
        return state

    def _validate(self, state, progress, checkpoints, writer, bar) -> TrainState:
        step = int(state.step)
        metrics = self.evaluate(state.weights, "valid").compute(split="valid")
        rate = self._settings.learning_rate * float(state.rate_scale)
        writer.write_scalars(step, {f"valid/{key}": value for key, value in metrics.items()})
        writer.write_scalars(step, {"learning_rate": rate})
        progress.evaluations.append({"step": step, **metrics})
        score = metrics["auc"] if self._loop.monitor == "auc" else -metrics["logloss"]
        best = progress.best_score
        message = f"step {step}: valid auc {metrics['auc']:.5f}, logloss {metrics['logloss']:.5f}"
        if best is None or score > best + self._loop.min_improvement:
            progress.best_score, progress.best_step, progress.bad_evaluations = score, step, 0
        else:
            progress.bad_evaluations += 1
            message += f" (best {abs(best):.5f} at step {progress.best_step})"
            cut_after = self._settings.plateau_patience + 1
            if self._settings.schedule == "plateau" and progress.bad_evaluations % cut_after == 0:
                floor = self._settings.plateau_floor / self._settings.learning_rate
                state = cut_learning_rate(state, self._settings.plateau_factor, floor)
        if hosts.is_first():
            bar.write(message)
        if progress.batch == self._steps_per_epoch:
            progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.finished = self._is_finished(progress)
        checkpoints.save(state, progress)
        return state

    def _is_finished(self, progress: Progress) -> bool:
        patience = self._loop.patience
        out_of_patience = patience > 0 and progress.bad_evaluations >= patience
        return progress.epoch >= self._loop.epochs or out_of_patience
