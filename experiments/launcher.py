"""Start of every launcher: strict flag parsing, and one-line messages for user errors."""

import ctypes
import importlib.util
import os
import pathlib
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from deepfm_jax.errors import PreemptedError, UserError, describe, one_line
from deepfm_jax.files import is_full_disk

from . import config_files

# What ml_collections raises for a config key that does not exist, and absl for a bad value.
_CONFIG_ERRORS = (AttributeError, KeyError, TypeError, ValueError, flags.Error)

# sysexits.h: EX_TEMPFAIL.
_TRY_AGAIN = 75

# PCI vendor ids of Google (TPUs), NVIDIA and AMD; and the devices by which a container without a
# PCI bus sees a GPU (CUDA, CUDA in WSL 2, ROCm) or a TPU.
_PCI_DEVICES = pathlib.Path("/sys/bus/pci/devices")
_ACCELERATOR_VENDORS = ("0x1ae0", "0x10de", "0x1002")
_ACCELERATOR_DEVICES = (
    "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/accel0", "/dev/vfio",
)  # fmt: skip

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next allocation; does nothing on other systems.

    A training step on a CPU allocates its temporary arrays anew, a hundred megabytes and more. By
    default glibc maps and unmaps them at every step, and the kernel then clears every page again:
    about a fifth of a step's time. Call this before threads start, so before JAX and TensorFlow.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # Arrays above a gibibyte, usually tables, still go back to the system when freed.
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_M_TOP_PAD, 1 << 26)
    # Only the first thread's arena can hold arrays above 64 MiB.
    libc.mallopt(_M_ARENA_MAX, 1)


def skip_absent_tpu() -> None:
    """Keeps JAX from loading libtpu on a machine without an accelerator.

    libtpu may be installed to compile for TPUs on a machine without one, as the tests do. JAX would
    load it anyway, and it would print errors. If there is any accelerator, or ``JAX_PLATFORMS`` is
    set, JAX makes its own choice. Call this before the first array is created.
    """
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    vendors = _PCI_DEVICES.glob("*/vendor")
    if any(vendor.read_text().strip() in _ACCELERATOR_VENDORS for vendor in vendors):
        return
    if not any(map(os.path.exists, _ACCELERATOR_DEVICES)):
        jax.config.update("jax_platforms", "cpu")


def run(main: Callable[[], None]) -> None:
    """Runs a launcher's ``main`` after parsing flags.

    The exit status is 0 on success. On failure one line goes to stderr and the status is 2 for a
    user error or a full disk, 130 for Ctrl-C, and 75 if the scheduler reclaimed the machines and
    the run can be resumed.
    """
    keep_freed_memory()
    skip_absent_tpu()
    # TensorFlow only reads files here, so messages about its kernels would be noise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

    def body(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; every option is a --flag=value")
        if not flags.FLAGS["verbosity"].present:
            # Orbax and TFDS log every file that they write, which would bury the progress bar.
            logging.set_verbosity(logging.WARNING)
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            ending = _ending(error)
            if ending is None:
                raise
            line, status = ending
            print(line, file=sys.stderr)
            sys.exit(status)

    app.run(body, flags_parser=_parse)


def end_at_once(error: BaseException) -> None:
    """Ends one process of a job at once, with one line on stderr.

    At an ordinary exit JAX waits for the other processes, and one of them may be gone. The status
    is that of ``run``. Any other error, a bug or a fault of the machine, also prints its traceback
    and has status 2.
    """
    ending = _ending(error)
    if ending is None:
        traceback.print_exception(error)
        ending = f"error: {describe(error)}", 2
    line, status = ending
    print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


def _ending(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit status of an error that needs no traceback; None for any other."""
    match error:
        case PreemptedError():
            return f"error: {error}", _TRY_AGAIN
        case UserError():
            return f"error: {error}", 2
        case KeyboardInterrupt():
            return "interrupted", 128 + signal.SIGINT
        case OSError() if is_full_disk(error):
            place = error.filename or "output"
            return f"error: {place}: {error.strerror}; free some and start again", 2
    return None


def clean_up_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end the process by an exception, as Ctrl-C does.

    By default they end it at once, without cleaning up unfinished work. Under nohup, SIGHUP is
    still ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def define_config(default: str | None = None) -> flags.FlagHolder:
    """Defines ``--config=RECIPE`` or ``FILE``; ``--config.KEY=VALUE`` changes an existing key.

    Without a default, ``--config`` is required.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, "Recipe or config file, and its model: frappe, frappe:fm, my.py"
    )
    flags.FLAGS["config"].parser = _ConfigParser()
    try:
        flags.set_default(holder, default)
    except _CONFIG_ERRORS as error:
        # Setting the default reads it at once, and applies --config.KEY.
        _fail(f"config: {one_line(error)}")
        raise AssertionError from error
    if default is None:
        flags.mark_flag_as_required("config")
    return holder


def change(config: ConfigDict, changes: Mapping[str, Any], model: str) -> None:
    """Applies the command line's changes to the config of one of several models.

    ``loop.epochs`` also limits a pretraining stage, because it is the budget of the whole
    comparison. The config itself determines what else the stage inherits from its model (see
    ``plateau_recipe``).

    Args:
      config: Changed in place.
      changes: Values by key, such as ``"loop.epochs"``.
      model: Model of the config.

    Raises:
      UserError: the config does not have a key, or a value has the wrong type.
    """
    for key, value in changes.items():
        try:
            config.update_from_flattened_dict({key: value})
        except KeyError:
            raise UserError(f"--config.{key}: {model} has no such setting") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"--config.{key}={value!r} of {model}: {error}") from None
    own = "pretraining.loop.epochs"
    if "loop.epochs" in changes and own not in changes and config.get("pretraining") is not None:
        epochs = min(config.pretraining.loop.epochs, config.loop.epochs)
        config.update_from_flattened_dict({own: epochs})


class _ConfigParser(flags.ArgumentParser):
    """Parses ``--config`` into a config with fixed keys.

    ml_collections' own parser accepts only paths, and does not load a file as part of a package.
    """

    def parse(self, argument: str) -> ConfigDict:
        return config_files.read(argument).lock()


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{one_line(error)} (--help lists the flags)")
    except _CONFIG_ERRORS as error:
        _fail(f"config: {one_line(error)}")
    raise AssertionError


def _fail(message: str, status: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
