"""Runs launchers in processes that are forked from one with the libraries imported.

The imports of a launcher take several seconds of CPU, most of what a refused flag costs. A fork
server, one for each pytest worker, imports the libraries once; it creates no JAX backend and no
array, so a fork of it starts where ``python -m`` is after its imports. The package and the
launchers themselves are imported in the fork, without the type checks of the tests.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
ENDS_WITHIN = 300  # seconds

_LIBRARIES = (
    "clu.metric_writers",
    "flax.linen",
    "matplotlib.figure",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "pyarrow.csv",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "tensorflow",
    "tensorflow_datasets",
)
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(_LIBRARIES))


def _read_by_imports():
    return {key: text for key, text in os.environ.items() if key.startswith(("JAX_", "PYTHON"))}


_READ_BY_SERVER = _read_by_imports()


def command(verb, *flags):
    """The command line of a launcher."""
    return [sys.executable, "-m", f"experiments.{verb}", *map(str, flags)]


class Launched:
    """A launcher in a fork of the server, to be used as a ``subprocess.Popen``."""

    def __init__(self, verb, *flags, env=None):
        self.args = command(verb, *flags)
        self._folder = pathlib.Path(tempfile.mkdtemp())
        self._streams = [self._folder / name for name in ("stdout", "stderr")]
        arguments = (*self.args[2:3], self.args[3:], dict(env or os.environ), *self._streams)
        self._process = _SERVER.Process(target=_run_module, args=arguments, daemon=True)
        self._process.start()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def communicate(self, timeout=ENDS_WITHIN):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return tuple(stream.read_text() if stream.exists() else "" for stream in self._streams)

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        """Ends the process, if it has not ended, and forgets what it printed."""
        self._process.kill()
        self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def run(verb, *flags):
    """What a launcher prints, and its exit status."""
    if _read_by_imports() != _READ_BY_SERVER:
        return subprocess.run(
            command(verb, *flags), cwd=ROOT, capture_output=True, text=True, check=False
        )
    launched = Launched(verb, *flags)
    try:
        streams = launched.communicate()
    finally:
        launched.kill()
    return subprocess.CompletedProcess(launched.args, launched.returncode, *streams)


def mistake(verb, *flags):
    """The single line that reports a mistake."""
    done = run(verb, *flags)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def _run_module(module, arguments, environment, *streams):
    for stream, path in zip((sys.stdout, sys.stderr), streams, strict=True):
        with open(path, "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing leaves its children without these.
        atexit._run_exitfuncs()
