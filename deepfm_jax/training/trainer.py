"""The training loop: epochs of steps, evaluations and checkpoints."""

import dataclasses
import math
import os

import jax
from tqdm import tqdm

from deepfm_jax.distributed import hosts
from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh, process_rows
from deepfm_jax.errors import PreemptedError, UserError
from deepfm_jax.input.pipeline import PreparedData, prefetch_to_device
from deepfm_jax.metrics import TaskMetrics, flat_metrics
from deepfm_jax.training.checkpoint import Checkpoints, Progress
from deepfm_jax.training.evaluation import evaluate
from deepfm_jax.training.first_weights import Source
from deepfm_jax.training.loss_log import LossLog
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import (
    TrainState,
    Weights,
    create_state,
    placement_for,
    weights_layout,
)
from deepfm_jax.training.step import cut_learning_rate, make_score_step, make_train_step
from deepfm_jax.training.waiting import TimedBatches


class Trainer:
    """The compiled steps of a run and the data they read; holds nothing that training changes."""

    def __init__(self, experiment: Experiment, data: PreparedData, frozen_rows: bool = False):
        """Builds network, optimizer and steps; compiles nothing yet.

        Args:
          experiment: Settings of the run.
          data: Its data set.
          frozen_rows: Whether some rows of the table are frozen.

        Raises:
          UserError: the settings do not fit the data or the devices.
        """
        self.experiment = experiment
        self._loop = experiment.loop
        self._settings = experiment.optimizer
        self._data = data
        mesh = create_mesh(replicas=experiment.partitioning.replicas)
        self._batch_sharding = batch_sharding(mesh, self._loop.batch_size, "loop.batch_size")
        self._eval_sharding = batch_sharding(
            mesh, self._loop.eval_batch_size, "loop.eval_batch_size"
        )
        self._negative_rate = experiment.data.negative_rate
        self._rows_per_epoch = data.rows("train", self._negative_rate)
        self._steps_per_epoch = -(-self._rows_per_epoch // self._loop.batch_size)
        self.network = experiment.build_network(data.encoder)
        total_steps = self._loop.epochs * self._steps_per_epoch
        model = self.network.model
        optimizer = create_for(experiment.optimizer, total_steps, model, self._loop.batch_size)
        self.optimizer = dataclasses.replace(optimizer, has_frozen_rows=frozen_rows)
        self.placement = placement_for(self.optimizer, mesh, experiment.partitioning)
        self._step = make_train_step(self.network, self.optimizer, self.placement)
        self._score = make_score_step(self.network, self.placement, self._negative_rate)
        count = min(self._loop.evaluations_per_epoch, self._steps_per_epoch)
        self._evaluation_batches = {
            math.ceil(self._steps_per_epoch * (i + 1) / count) for i in range(count)
        }

    def start(self, checkpoints: Checkpoints, source: Source | None) -> tuple[TrainState, Progress]:
        """Restores the last checkpoint or, without one, creates a state, from a source if given."""
        seed = self.experiment.seed
        state = create_state(self.network, self.optimizer, seed, self.placement)
        last = checkpoints.last_step
        if last is None:
            if source is not None:
                state = source.start(state)
            streams = self._loop.streams or jax.process_count()
            return state, Progress(fingerprint=self._data.fingerprint, streams=streams)
        progress = checkpoints.progress(last)
        self._check_rows(progress)
        # Settings that ended the run (epochs, patience) may have changed since.
        progress.finished = self._is_finished(progress)
        if hosts.is_primary():
            print(f"resuming at step {last} (epoch {progress.epoch + 1}, batch {progress.batch})")
        return checkpoints.restore(last, like=state), progress

    def check_progress(self, workdir: str | os.PathLike[str]) -> None:
        """Checks that the run in ``workdir`` trained on these rows, for at most the set epochs.

        Raises:
          UserError: it trained on other rows, or for more epochs.
        """
        with Checkpoints(workdir) as checkpoints:
            last = checkpoints.last_step
            assert last is not None
            progress = checkpoints.progress(last)
        self._check_rows(progress)
        # A later start may have changed the configuration of the run.
        if progress.epoch > self._loop.epochs:
            raise UserError(
                f"workdir {workdir} holds a run of {progress.epoch} epochs, but this one has "
                f"loop.epochs={self._loop.epochs}; choose another --workdir, or set "
                f"loop.epochs={progress.epoch}"
            )

    def _check_rows(self, progress: Progress) -> None:
        if progress.fingerprint != self._data.fingerprint:
            raise UserError(
                "the workdir's checkpoint was trained on other rows than the prepared data set "
                "now holds; choose another --workdir"
            )

    def weights_layout(self) -> Weights:
        """Shapes, dtypes and shardings of the weights, without arrays."""
        return weights_layout(self.network, self.placement)

    def evaluate(self, weights: Weights, split: str) -> TaskMetrics:
        """Evaluates the network on all rows of a split."""
        size = self._loop.eval_batch_size
        batches = self._data.batches(
            split,
            size,
            streams=jax.process_count(),
            part=process_rows(self._eval_sharding, size),
            groups=True,
        )
        tasks = self.network.head.tasks
        return evaluate(self._score, weights, tasks, batches, self._eval_sharding)

    def run(
        self, state: TrainState, progress: Progress, checkpoints: Checkpoints, writer
    ) -> tuple[TrainState, Progress]:
        """Trains until the last epoch or until patience runs out."""
        while not progress.finished:
            state = self._run_epoch(state, progress, checkpoints, writer)
        return state, progress

    def _run_epoch(self, state, progress, checkpoints, writer) -> TrainState:
        batches = self._data.batches(
            "train",
            self._loop.batch_size,
            seed=self.experiment.seed,
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
            disable=not hosts.is_primary(),
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
                        f"the scheduler asked to stop; step {step} is saved, and a restart with "
                        "the same workdir resumes from it"
                    )
        return state

    def _validate(self, state, progress, checkpoints, writer, bar) -> TrainState:
        step = int(state.step)
        metrics = self.evaluate(state.weights, "valid").compute(split="valid")
        rate = self._settings.learning_rate * float(state.rate_scale)
        writer.write_scalars(step, {f"valid/{key}": value for key, value in flat_metrics(metrics)})
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
        if hosts.is_primary():
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
