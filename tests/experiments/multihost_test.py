"""Two real processes with four virtual devices each form one job: same losses, same end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm_jax.training.checkpoint import Checkpoints
from deepfm_jax.training.loop import train
from tests import click_logs, experiment_settings
from tests.launchers import ROOT, Launched, mistake

# The sparse path and dropout, which could depend on a batch's layout on the devices.
SETTINGS = {
    "data": {"name": "frappe"},
    "model": {"name": "deepfm", "embed_dim": 4, "mlp_dims": [8], "dropout": 0.2},
    "optimizer": {"table": "sparse", "learning_rate": 5e-3, "clip_norm": 1.0},
    "loop": {"batch_size": 512, "epochs": 4, "patience": 0, "log_steps": 1, "checkpoint_steps": 10},
    "seed": 1,
}
CONFIG = f"""
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({SETTINGS!r} | {{"data": {{"name": "frappe", "folder": "data"}}}})
"""
ENDS_WITHIN = 180  # seconds; a process that starts, compiles and trains needs some 20 alone


class Job:
    """Starts the processes of one job on this machine.

    The last one runs ``last``, if given, in an ``environment`` that differs.
    """

    def __init__(self, workdir, folders, *flags, last=None, environment=None):
        config = workdir.parent / f"{workdir.name}.py"
        config.write_text(CONFIG)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        here = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("=8", "=4")}
        self.processes = []
        for index, folder in enumerate(folders):
            given = (
                f"--config={config}", f"--config.data.folder={folder}", f"--workdir={workdir}",
                "--multihost", f"--coordinator_address=127.0.0.1:{port}",
                f"--num_processes={len(folders)}", f"--process_id={index}", *flags,
            )  # fmt: skip
            if index and last:
                process = subprocess.Popen(
                    [sys.executable, *last, *given], cwd=ROOT, env={**here, **(environment or {})},
                    text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )  # fmt: skip
            else:
                process = Launched("train", *given, env=here)
            self.processes.append(process)

    def ends(self):
        """Exit status, stdout and stderr of each process, within bounded time."""
        ended = []
        try:
            for process in self.processes:
                out, err = process.communicate(timeout=ENDS_WITHIN)
                ended.append((process.returncode, out, err))
        finally:
            for process in self.processes:
                process.kill()
        return ended


def checkpoint_after(workdir, step):
    """Waits for a checkpoint later than ``step`` and returns its step."""
    deadline = time.monotonic() + ENDS_WITHIN
    while time.monotonic() < deadline:
        names = [path.name for path in (workdir / "checkpoints").glob("*")]
        found = [int(name) for name in names if name.isdigit() and int(name) > step]
        if found:
            return max(found)
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint after step {step}")


def progress_of(workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.progress(checkpoints.last_step)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Files of vectors for two columns, longer than those of the table: PCA reduces them."""
    files = {}
    for column in ("user", "item"):
        files[column] = str(tmp_path_factory.mktemp("vectors") / f"{column}.parquet")
        drawn = np.random.default_rng(len(column)).normal(size=(20, 40))
        pq.write_table(pa.table({column: range(20), "vector": list(drawn)}), files[column])
    return files


def flags_of(vectors):
    return (
        f"--pretrained_vectors=user={vectors['user']}",
        f"--frozen_vectors=item={vectors['item']}",
    )


@pytest.fixture(scope="module")
def whole(prepared, vectors, tmp_path_factory):
    """The workdir of a finished job, and how its processes ended."""
    workdir = tmp_path_factory.mktemp("job") / "run"
    # Another processor, on which NumPy's products differ in their last bits.
    other = {"OPENBLAS_CORETYPE": "Prescott"}
    trains = ("-m", "experiments.train")
    job = Job(workdir, [prepared, prepared], *flags_of(vectors), last=trains, environment=other)
    ends = job.ends()
    assert [status for status, _, _ in ends] == [0, 0], ends
    return workdir, ends


def test_two_processes_train_as_one(whole, prepared, vectors, tmp_path):
    workdir, _ = whole
    alone = experiment_settings.small(
        prepared,
        **{**SETTINGS, "data": {}, "loop": {**SETTINGS["loop"], "streams": 2}},
        pretrained_vectors={
            "user": vectors["user"],
            "item": {"file": vectors["item"], "tuned": False},
        },
    )
    results = train(alone, tmp_path)
    there = json.loads((workdir / "results.json").read_text())
    losses, same = (np.array(progress_of(w).train_losses) for w in (tmp_path, workdir))
    assert len(losses) == 4 * -(-click_logs.ROWS["train"] // 512)
    np.testing.assert_allclose(same, losses, rtol=1e-5)
    for split, metrics in results["metrics"].items():
        assert there["metrics"][split]["rows"] == click_logs.ROWS[split]
        for name, value in metrics.items():
            assert there["metrics"][split][name] == pytest.approx(value, rel=1e-4), name


def test_only_the_first_process_speaks_and_writes(whole):
    workdir, ((_, first, bar), (_, second, no_bar)) = whole
    assert "split" in first
    assert [out.count("pretrained vectors: ") for out in (first, second)] == [2, 0]
    assert "epoch 4/4" in bar
    # Gloo, which runs collectives on CPUs, logs its connections; nothing else prints.
    assert not {"split", "AUC", "step", "results.json"} & set(second.split())
    assert {"split", "AUC", "step", "results.json,"} <= set(first.split())
    assert "epoch" not in no_bar
    assert len(list((workdir / "tensorboard").glob("events.*"))) == 1


def test_killed_and_asked_to_stop_it_goes_on_and_ends_the_same(whole, prepared, vectors, tmp_path):
    workdir, folders, flags = tmp_path / "run", [prepared, prepared], flags_of(vectors)
    job = Job(workdir, folders, *flags)
    step = checkpoint_after(workdir, 0)
    job.processes[1].send_signal(signal.SIGKILL)
    (status, _, reported), (killed, _, _) = job.ends()
    assert killed == -signal.SIGKILL
    # The collective fails or, if it never returns, the runtime ends the process.
    assert status in (1, -signal.SIGABRT)
    assert "has another one ended? Start all again" in reported or "another task died" in reported

    job = Job(workdir, folders, *flags)
    step = checkpoint_after(workdir, step)
    job.processes[1].send_signal(signal.SIGINT)
    ends = job.ends()
    assert [status for status, _, _ in ends] == [75, 75], ends
    assert f"step {checkpoint_after(workdir, step - 1)} is saved" in ends[0][2]
    assert "interrupt again to end at once" in ends[1][1]
    assert not progress_of(workdir).finished

    ends = Job(workdir, folders, *flags).ends()
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "resuming at step" in ends[0][1]
    reference, _ = whole
    results, expected = (
        json.loads((folder / "results.json").read_text()) for folder in (workdir, reference)
    )
    assert results["metrics"] == expected["metrics"]
    assert progress_of(workdir).train_losses[-1] == progress_of(reference).train_losses[-1]


def test_a_mistake_of_one_process_ends_all(prepared, tmp_path):
    ends = Job(tmp_path / "run", [prepared, tmp_path / "nothing"]).ends()
    assert [status for status, _, _ in ends] == [2, 2], ends
    assert "error: process 1: " in ends[0][2]
    assert all("is not prepared" in err for _, _, err in ends)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--num_processes needs a job of several processes"),
        (["--multihost", "--process_id=0"], "give --coordinator_address, --num_processes and"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    assert message in mistake("train", *flags)


FAILING = """
import runpy, sys

sys.path.insert(0, {root!r})
from deepfm_jax.training.waiting import TimedBatches

started = TimedBatches.started


def fails(self, loss):
    started(self, loss)
    if int(fails.step) == 3:
        raise {error}
    fails.step += 1


fails.step = 0
TimedBatches.started = fails
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("error", "status", "line", "message"),
    [
        ("OSError('the disk\\nis gone')", 2, "error: OSError: the disk is gone", None),
        ("KeyboardInterrupt", 130, "interrupted", "interrupted"),
    ],
)
def test_an_exception_between_two_exchanges_ends_all(
    prepared, tmp_path, error, status, line, message
):
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(root=str(ROOT), error=error))
    flags = ("--config.loop.epochs=4000", "--config.loop.checkpoint_steps=2")
    job = Job(tmp_path / "run", [prepared, prepared], *flags, last=(str(script),))
    checkpoint_after(tmp_path / "run", 0)
    started = time.monotonic()
    (first, _, reported), (second, _, said) = job.ends()
    assert time.monotonic() - started < 15
    assert (first, second) == (2, status), (reported, said)
    expected = f"error: process 1 ended: {message or line.removeprefix('error: ')}"
    assert [each for each in reported.splitlines() if "error" in each] == [expected]
    assert said.splitlines()[-1] == line
    assert "Traceback" not in reported
    # The newest checkpoint is whole.
    assert progress_of(tmp_path / "run").batch >= 2
