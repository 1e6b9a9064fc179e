"""One job of several processes: how a launcher joins it, and how it ends when others are lost.

On Cloud TPU, under Slurm and under Open MPI, ``--multihost`` finds the others by itself. Elsewhere
say where process 0 is, how many there are, and which one this is: ``--coordinator_address=HOST:PORT
--num_processes=2 --process_id=0``.
"""

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Iterator

from absl import flags

from deepfm_jax.errors import PreemptedError, UserError

from . import launcher

_MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Join the other processes of a job; start one on each host."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where it cannot be found out."
)
_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Processes of the job, where it cannot be found out.", lower_bound=1
)
_PROCESS = flags.DEFINE_integer(
    "process_id", None, "Which of them this one is, from 0.", lower_bound=0
)
_START_SECONDS = flags.DEFINE_integer(
    "start_timeout", 300, "Seconds to wait for the other processes to join.", lower_bound=1
)
_SILENCE_SECONDS = flags.DEFINE_integer(
    "heartbeat_timeout", 30, "Seconds after which a silent process counts as lost.", lower_bound=5
)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """This process as a part of its job, where ``--multihost`` says that it is one.

    Raises:
      UserError: flags that contradict each other, or the others cannot be reached.
    """
    if not _MULTIHOST.value:
        for flag in (_COORDINATOR, _PROCESSES, _PROCESS):
            if flag.value is not None:
                raise UserError(f"--{flag.name} is of a job of several processes: add --multihost")
        yield
        return
    import jax

    from deepfm_jax.distributed.early_end import end_together

    _join()
    # Where a collective never returns, the runtime ends this process with a message about the one
    # that was lost; absl's stack traces of all threads would bury it.
    faulthandler.disable()
    signal.signal(signal.SIGINT, _stop_all)
    try:
        with end_together():
            yield
    except PreemptedError:
        raise  # All processes stop together.
    except jax.errors.JaxRuntimeError as error:
        cause = " ".join(str(error).split())[:300]
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} cannot go on; has "
            "another one ended? Start all again with the same --workdir: training goes on from its "
            f"last checkpoint ({cause})",
            file=sys.stderr,
            flush=True,
        )
        # At an ordinary exit a process waits for the others, and one of them is gone.
        os._exit(1)
    except BaseException as error:
        launcher.end_at_once(error)
    jax.distributed.shutdown()


def _stop_all(*_) -> None:
    """Makes Ctrl-C in one process stop the job as the scheduler's SIGTERM does: all, at one step.

    A second Ctrl-C ends this process at once, and the others with it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("stopping all processes after a checkpoint; interrupt again to end at once", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _join() -> None:
    import jax

    given = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if any(value is not None for value in given) and None in given:
        raise UserError(
            "give --coordinator_address, --num_processes and --process_id together, or none of "
            "them where Cloud TPU, Slurm or Open MPI tells"
        )
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=_START_SECONDS.value,
            heartbeat_timeout_seconds=_SILENCE_SECONDS.value,
        )
    except (ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(
            "--multihost: cannot join the other processes; on a cluster that JAX does not know, "
            f"give --coordinator_address, --num_processes and --process_id ({cause})"
        ) from None
