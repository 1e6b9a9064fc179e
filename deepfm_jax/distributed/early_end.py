"""Ends all processes of a job when one of them ends early.

``hosts.run_on_all`` passes a failure to the other processes at points where all of them
synchronise. Anywhere else, such as in reading data or drawing a plot, a process that fails leaves
the others waiting inside a collective, where no exception reaches them. Here each process publishes
its condition in the key-value store of ``jax.distributed``, and a thread of each process watches
the others.

JAX has no public name for that store. If a version of JAX moves it, this module does nothing, and
only the heartbeat of ``jax.distributed`` detects a lost process.
"""

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from deepfm_jax.errors import PeerError, PreemptedError, describe

_FOLDER = "deepfm_jax/early_end"
_WORKING, _DONE, _SEEN, _ENDED = "working", "done", "seen", "ended"
_METHODS = ("key_value_set", "key_value_dir_get")
_MESSAGE_CHARACTERS = 1000

_POLL_SECONDS = 1.0
# A main thread that notices the failure has a better message, and gets this long to print it.
_GRACE_SECONDS = 1.0
# The longest that an ending process waits for the others to see its message.
_LINGER_SECONDS = 4.0
_STATUS = 2


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Context of a process's work in a job: an exception in one process ends all processes.

    If an exception, or Ctrl-C, ends the work of this process, it notifies the others and reraises
    the exception. The caller should then end the process with ``os._exit``, because an ordinary
    exit waits for the other processes. If another process ends early, a thread of this one prints a
    line with that process and its message on stderr, and ends this process with exit status 2
    within about four seconds, even if the main thread is waiting inside a collective. Checkpoints
    are atomic, so the newest complete one is not affected.

    A process that has finished its work waits for the others. ``PreemptedError`` is raised in all
    processes at the same step, and does not count as an early end. A job of one process skips all
    this.

    Raises:
      PeerError: another process ended early, and the main thread noticed: a collective failed, or
        the work of this process was done.
    """
    client = _client()
    if jax.process_count() == 1 or client is None:
        yield
        return
    peers = _Peers(client, jax.process_index(), jax.process_count())
    peers.put(_WORKING)
    threading.Thread(target=_watch, args=(peers,), daemon=True).start()
    try:
        try:
            yield
        except PreemptedError:
            peers.finish()
            raise
        peers.finish()
    except PreemptedError:
        raise
    except PeerError:
        peers.leave(_SEEN)
        raise
    except BaseException as error:
        # A process publishes why it ends before its connection is lost.
        lost = isinstance(error, jax.errors.JaxRuntimeError)
        if lost and (ended := peers.first_ended()) is not None:
            peers.leave(_SEEN)
            raise ended from None
        peers.leave(f"{_ENDED} {describe(error)[:_MESSAGE_CHARACTERS]}")
        raise
    finally:
        peers.over.set()


class _Peers:
    """The conditions of all processes of a job, in the key-value store.

    Attributes:
      process: Index of this process.
      over: Set when the main thread has left its work, for any reason.
    """

    def __init__(self, client: Any, process: int, count: int):
        self.process = process
        self.over = threading.Event()
        # Only one thread may report the end; another one waits for the exit.
        self._reporting = threading.Lock()
        self._client = client
        self._others = frozenset(range(count)) - {process}

    def put(self, condition: str) -> None:
        """Stores the condition of this process, or gives up if the store does not answer."""
        key = f"{_FOLDER}/{self.process}"

        def store():
            with contextlib.suppress(Exception):
                self._client.key_value_set(key, condition, allow_overwrite=True)

        # The process that hosts the store may be gone, and the call has no timeout.
        thread = threading.Thread(target=store, daemon=True)
        thread.start()
        thread.join(_LINGER_SECONDS)

    def conditions(self) -> dict[int, str]:
        """The conditions of the other processes; empty if the store does not answer."""
        try:
            entries = self._client.key_value_dir_get(_FOLDER)
        except Exception:  # Clients raise various exceptions; the next poll may succeed.
            return {}
        found = {int(key.rpartition("/")[2]): condition for key, condition in entries}
        return {process: found[process] for process in sorted(self._others & found.keys())}

    def first_ended(self) -> PeerError | None:
        """The error of the first other process that ended early; None if none did."""
        for process, condition in self.conditions().items():
            state, _, message = condition.partition(" ")
            if state == _ENDED:
                return PeerError(f"process {process} ended: {message}")
        return None

    def leave(self, condition: str) -> None:
        """Stores why this process ends, and waits a few seconds until all others have seen it.

        The calling thread then ends the process. If another thread is already doing so, this call
        does not return.
        """
        self._reporting.acquire()
        self.over.set()
        self.put(condition)
        deadline = time.monotonic() + _LINGER_SECONDS
        while time.monotonic() < deadline and not self._all_in((_SEEN, _ENDED, _DONE)):
            time.sleep(_POLL_SECONDS / 10)
        if self.process == 0:
            time.sleep(_GRACE_SECONDS)  # This process hosts the store, which ends with it.

    def finish(self) -> None:
        """Waits until all processes are done.

        Raises:
          PeerError: another process ended early instead.
        """
        self.put(_DONE)
        while not self._all_in((_DONE,)):
            ended = self.first_ended()
            if ended is not None:
                raise ended
            time.sleep(_POLL_SECONDS / 10)

    def _all_in(self, states: tuple[str, ...]) -> bool:
        conditions = self.conditions()
        found = {process for process, text in conditions.items() if text.split(" ")[0] in states}
        return found == self._others


def _watch(peers: _Peers, end: Callable[[int], Any] = os._exit) -> None:
    """Ends this process when another one ends early, unless its own work is over first."""
    while not peers.over.wait(_POLL_SECONDS):
        ended = peers.first_ended()
        if ended is None or peers.over.wait(_GRACE_SECONDS):
            continue
        peers.leave(_SEEN)
        # The progress bar of the primary process does not end its line.
        line_break = "\n" if peers.process == 0 else ""
        print(f"{line_break}error: {ended}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        end(_STATUS)


def _client() -> Any | None:
    """The client of ``jax.distributed``'s key-value store; None if this JAX does not have it."""
    try:
        client = importlib.import_module("jax._src.distributed").global_state.client
    except (ImportError, AttributeError):
        return None
    return client if all(hasattr(client, name) for name in _METHODS) else None
