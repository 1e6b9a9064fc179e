import math
import time

import jax.numpy as jnp
import pytest

from deepfm_jax.training.checkpoint import Progress
from deepfm_jax.training.loss_log import LossLog
from deepfm_jax.training.waiting import TimedBatches


class Output:
    """An output of a step that may or may not be ready."""

    def __init__(self, ready):
        self._ready = ready

    def is_ready(self):
        return self._ready


def slow(count, seconds):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_a_wait_counts_where_the_last_step_has_ended():
    timed = TimedBatches(slow(4, 0.02))
    waits = []
    for number, ready in zip(timed, (True, False, True, True), strict=False):
        waits.append((number, timed.waited))
        timed.started(Output(ready))
    assert [number for number, _ in waits] == [0, 1, 2, 3]
    # There is no step before the first batch; the third came while the second step was running.
    assert [waited >= 0.02 for _, waited in waits] == [True, True, False, True]
    assert waits[2][1] == 0


def test_batches_that_are_there_are_not_waited_for():
    timed = TimedBatches([1, 2])
    assert [timed.waited for _ in timed] == pytest.approx([0, 0], abs=0.01)


class Writer:
    def __init__(self):
        self.written = []

    def write_scalars(self, step, scalars):
        self.written.append((step, scalars))


def test_the_log_adds_waits_to_the_progress_and_writes_their_share():
    progress, writer = Progress(), Writer()
    assert progress.wait_share is None
    log = LossLog(2, progress, writer)
    log.add(1, jnp.float32(1), 10, waited=3.0)  # It compiles: only its wait is counted.
    assert (progress.start_waited, progress.waited, progress.wait_share) == (3.0, 0.0, None)
    assert "train/wait_share" not in writer.written[0][1]
    time.sleep(0.02)
    log.add(2, jnp.float32(1), 10, waited=0.01)
    assert progress.waited == 0
    log.add(3, jnp.float32(1), 10, waited=0.005)
    assert progress.waited == pytest.approx(0.015)
    step, scalars = writer.written[1]
    assert step == 3
    assert scalars["train/wait_share"] == pytest.approx(0.015 / progress.seconds)
    assert progress.wait_share == pytest.approx(3.015 / (3 + progress.seconds))
    assert not math.isnan(log.latest)
