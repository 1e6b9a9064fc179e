"""The training loss by step, fetched from the device only every few steps."""

import math
import time

import jax
import numpy as np

from deepfm_jax.errors import UserError
from deepfm_jax.training.checkpoint import Progress


class LossLog:
    """Holds losses on the device and fetches them every few steps, so that steps overlap.

    It adds points, time, waits and rows to a run's ``Progress``. The time of the first step is left
    out, because it includes compilation.
    """

    def __init__(self, every: int, progress: Progress, writer):
        self._every = every
        self._progress = progress
        self._writer = writer
        self._losses: list[jax.Array] = []
        self._rows = 0
        self._waited = 0.0
        self._started: float | None = None
        self.latest = math.nan

    def add(self, step: int, loss: jax.Array, rows: int, waited: float = 0.0) -> None:
        """Adds the loss of ``step``, a scalar that may still be being computed.

        Args:
          step: Number of the step.
          loss: Its loss.
          rows: Rows of its batch.
          waited: Seconds that the devices waited for it.
        """
        self._losses.append(loss)
        if self._started is None:
            self._progress.start_waited += waited
            self.flush(step)
            return
        self._rows += rows
        self._waited += waited
        if len(self._losses) >= self._every:
            self.flush(step)

    def flush(self, step: int) -> None:
        """Fetches the held losses and restarts the clock, so that later work is not counted.

        Raises:
          UserError: a loss is not finite.
        """
        if self._losses:
            self.latest = float(np.mean(jax.device_get(self._losses)))
            if not math.isfinite(self.latest):
                raise UserError(
                    f"the training loss is {self.latest} at step {step}; lower "
                    "optimizer.learning_rate or set optimizer.clip_norm"
                )
            self._progress.add_loss(step, self.latest)
            scalars = {"train/loss": self.latest}
            if self._started is not None:
                seconds = time.perf_counter() - self._started
                self._progress.seconds += seconds
                self._progress.waited += self._waited
                self._progress.examples += self._rows
                scalars["train/wait_share"] = self._waited / seconds
            self._writer.write_scalars(step, scalars)
        self._losses, self._rows, self._waited = [], 0, 0.0
        self._started = time.perf_counter()

    def restart_clock(self) -> None:
        """Leaves the time since the last ``flush`` out of the rate."""
        self._started = time.perf_counter()
