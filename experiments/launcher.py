"""How every launcher starts: flags parsed strictly, a user's mistake told in one line."""

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

# Google (TPUs), NVIDIA and AMD, by their numbers on the PCI bus; and the devices by which a
# container without that bus sees a GPU (CUDA, CUDA in WSL 2, ROCm) or a TPU.
_PCI_DEVICES = pathlib.Path("/sys/bus/pci/devices")
_ACCELERATOR_VENDORS = ("0x1ae0", "0x10de", "0x1002")
_ACCELERATOR_DEVICES = (
    "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/accel0", "/dev/vfio",
)  # fmt: skip

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next allocation; elsewhere it does nothing.

    A training step on a CPU allocates its temporary arrays anew, a hundred megabytes and more. As a
    rule glibc maps and unmaps them at every step, and the kernel then clears every page again:
    about a fifth of a step's time. Call it before threads start, so before JAX and TensorFlow.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # Arrays above a gibibyte, tables as a rule, still go back to the system when freed.
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(_M_TOP_PAD, 1 << 26)
    # The arenas of other threads than the first cannot hold arrays above 64 MiB.
    libc.mallopt(_M_ARENA_MAX, 1)


def skip_absent_tpu() -> None:
    """Keeps JAX from looking for a TPU, with a library that complains, where nothing is attached.

    libtpu may be installed to compile for TPUs on a machine without one, as the tests do. JAX loads
    it all the same, and it prints errors. Where there is any accelerator, or ``JAX_PLATFORMS`` is
    set, JAX's own choice stands. Call it before the first array.
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

    The exit status is 0 on success, 2 on a user's mistake or a full disk and 130 on Ctrl-C, each
    with one line on stderr; 75 when the scheduler wanted the machines back and a new start will go
    on.
    """
    keep_freed_memory()
    skip_absent_tpu()
    # TensorFlow only reads files here; its notes on its own kernels would be noise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

    def body(argv: list[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; every option is a --flag=value")
        if not flags.FLAGS["verbosity"].present:
            # Orbax and TFDS tell every file they write; it would bury the progress bar.
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
    """Ends a process of a job of several, with one line on stderr and without an ordinary exit.

    At an ordinary exit JAX waits for the other processes, and one of them may be gone. The status
    is that of ``run``, and 2 for any other error, which leaves its trace too: it is a fault of
    ours, or of the machine.
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
    """The line and the exit status of an error that needs no trace; None for any other."""
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
    """Lets a termination or hang-up end the process by an exception, as Ctrl-C does.

    By default they end it at once, and nothing that it leaves half-done is undone. Under nohup a
    hang-up goes on being ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def define_config(default: str | None = None) -> flags.FlagHolder:
    """``--config=RECIPE`` or ``FILE``; ``--config.KEY=VALUE`` changes only keys that it has.

    Without a default, ``--config`` is required.
    """
    holder = config_flags.DEFINE_config_file(
        "config", None, "Recipe or config file of the run, and its model: frappe, frappe:fm, my.py"
    )
    flags.FLAGS["config"].parser = _ConfigParser()
    try:
        flags.set_default(holder, default)
    except _CONFIG_ERRORS as error:
        # The default is read, and changed by --config.KEY, as soon as it is set.
        _fail(f"config: {one_line(error)}")
        raise AssertionError from error
    if default is None:
        flags.mark_flag_as_required("config")
    return holder


def change(config: ConfigDict, changes: Mapping[str, Any], model: str) -> None:
    """Makes the changes of the command line to one of several models' configs.

    ``loop.epochs`` shortens a stage before as well: it is the budget of the whole comparison. What
    else a stage before takes from its model, the config says itself (see ``plateau_recipe``).

    Args:
      config: Changed in place.
      changes: Values by key, as ``"loop.epochs"``.
      model: Whose config it is.

    Raises:
      UserError: a key that the config does not have, or a value of another type.
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
    """What ``--config`` names, as a config whose keys are fixed.

    ml_collections' own parser takes paths alone, and loads a file as part of no package.
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
