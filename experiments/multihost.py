"""Jobs of several processes: how a launcher joins one, and how it ends when others are lost.

On Cloud TPU, under Slurm and under Open MPI, ``--multihost`` finds the others automatically.
Elsewhere give the address of process 0, the number of processes, and the id of this one:
``--coordinator_address=HOST:PORT --num_processes=2 --process_id=0``.
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
    "coordinator_address", None, "HOST:PORT of process 0, if it cannot be detected."
)
_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Processes of the job, if they cannot be detected.", lower_bound=1
)
_PROCESS = flags.DEFINE_integer("process_id", None, "Id of this process, from 0.", lower_bound=0)
_START_SECONDS = flags.DEFINE_integer(
    "start_timeout", 300, "Seconds to wait for the other processes to join.", lower_bound=1
)
_SILENCE_SECONDS = flags.DEFINE_integer(
    "heartbeat_timeout", 30, "Seconds after which a silent process counts as lost.", lower_bound=5
)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Joins this process to its job if ``--multihost`` is given; leaves the job at the end.

    Raises:
      UserError: the flags contradict each other, or the other processes cannot be reached.
    """
    if not _MULTIHOST.value:
        for flag in (_COORDINATOR, _PROCESSES, _PROCESS):
            if flag.value is not None:
                raise UserError(f"--{flag.name} needs a job of several processes: add --multihost")
        yield
        return
    import jax

    from deepfm_jax.distributed.early_end import end_together

    _join()
    # If a collective never returns, the runtime ends this process with a message about the lost
    # one; absl's stack traces of all threads would bury it.
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
            f"error: process {jax.process_index()} of {jax.process_count()} cannot continue; has "
            "another one ended? Start all again with the same --workdir: training continues from "
            f"its last checkpoint ({cause})",
            file=sys.stderr,
            flush=True,
        )
        # An ordinary exit would wait for the other processes, and one of them is gone.
        os._exit(1)
    except BaseException as error:
        launcher.end_at_once(error)
    jax.distributed.shutdown()


def _stop_all(*_) -> None:
    """Makes Ctrl-C in one process stop the job like the scheduler's SIGTERM: all at one step.

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
            "them on Cloud TPU and under Slurm or Open MPI, which provide them"
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
