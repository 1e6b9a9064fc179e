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


def run(verb, *flags):
    """What a launcher prints, and its exit status."""
    arguments = command(verb, *flags)
    if _read_by_imports() != _READ_BY_SERVER:
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        streams = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
        process = _SERVER.Process(
            target=_run_module, args=(*arguments[2:3], arguments[3:], dict(os.environ), *streams)
        )
        process.start()
        process.join(ENDS_WITHIN)
        if process.exitcode is None:
            process.kill()
            process.join()
        texts = [stream.read_text() if stream.exists() else "" for stream in streams]
    return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


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
