"""How the processes of a job end together when one of them ends early.

``hosts.run_on_all`` carries a failure to the other processes where all of them meet. Anywhere else,
in the reader of the data or in the drawing of a plot, a process that fails leaves the others
waiting inside a collective, where no exception reaches them. Here each process keeps its condition
in the key-value store of ``jax.distributed``, and a thread of each process watches the others.

JAX has no public name for that store. Where a version of JAX keeps it elsewhere, nothing here
happens, and a lost process is noticed by ``jax.distributed``'s heartbeat alone.
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
# A main thread that notices the failure has the better message, and gets this long to print it.
_GRACE_SECONDS = 1.0
# The longest that a process which ends waits for the others to have seen its message.
_LINGER_SECONDS = 4.0
_STATUS = 2


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """The work of a job's process: an exception that ends it in one process ends it in all.

    If an exception, or Ctrl-C, ends the work of this process, it notifies the others and raises
    the exception again. The caller should then end the process by ``os._exit``, because an ordinary
    exit waits for the other processes. If another process ends early, a thread of this one prints a
    line on stderr with that process and its message, and ends this process with exit status 2
    within about four seconds; the main thread may be waiting inside a collective. Checkpoints are
    atomic, so the newest complete one is not affected.

    A process that has finished its work waits for the others. ``PreemptedError`` is raised in all
    processes at the same step, and ends none of them early. A job of one process skips all this.

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
        # The connection to a process that has ended is lost after that process said why.
        lost = isinstance(error, jax.errors.JaxRuntimeError)
        if lost and (ended := peers.first_ended()) is not None:
            peers.leave(_SEEN)
            raise ended from None
        peers.leave(f"{_ENDED} {describe(error)[:_MESSAGE_CHARACTERS]}")
        raise
    finally:
        peers.over.set()


class _Peers:
    """The conditions of all processes of a job, as the key-value store holds them.

    Attributes:
      process: Index of this process.
      over: Set when the main thread has left its work, for whatever reason.
    """

    def __init__(self, client: Any, process: int, count: int):
        self.process = process
        self.over = threading.Event()
        # Of two threads that know of the end only one speaks; the other waits for the exit.
        self._speaker = threading.Lock()
        self._client = client
        self._others = frozenset(range(count)) - {process}

    def put(self, condition: str) -> None:
        """Stores the condition of this process, or gives up where the store does not answer."""
        key = f"{_FOLDER}/{self.process}"

        def store():
            with contextlib.suppress(Exception):
                self._client.key_value_set(key, condition, allow_overwrite=True)

        # The process that keeps the store may be gone, and the call has no time limit.
        thread = threading.Thread(target=store, daemon=True)
        thread.start()
        thread.join(_LINGER_SECONDS)

    def conditions(self) -> dict[int, str]:
        """The conditions of the other processes; of none where the store does not answer."""
        try:
            entries = self._client.key_value_dir_get(_FOLDER)
        except Exception:  # Whatever a version of the client raises, the next poll may succeed.
            return {}
        found = {int(key.rpartition("/")[2]): condition for key, condition in entries}
        return {process: found[process] for process in sorted(self._others & found.keys())}

    def first_ended(self) -> PeerError | None:
        """What ended the first of the other processes that ended early."""
        for process, condition in self.conditions().items():
            state, _, message = condition.partition(" ")
            if state == _ENDED:
                return PeerError(f"process {process} ended: {message}")
        return None

    def leave(self, condition: str) -> None:
        """Stores why this process ends, and waits a few seconds until every other one knows.

        The calling thread then ends the process. Where another thread already does, this call does
        not return.
        """
        self._speaker.acquire()
        self.over.set()
        self.put(condition)
        deadline = time.monotonic() + _LINGER_SECONDS
        while time.monotonic() < deadline and not self._all_in((_SEEN, _ENDED, _DONE)):
            time.sleep(_POLL_SECONDS / 10)
        if self.process == 0:
            time.sleep(_GRACE_SECONDS)  # The store is in this process, and ends with it.

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
    """Ends this process when another one has ended early, unless its work is over before."""
    while not peers.over.wait(_POLL_SECONDS):
        ended = peers.first_ended()
        if ended is None or peers.over.wait(_GRACE_SECONDS):
            continue
        peers.leave(_SEEN)
        # The progress bar of the primary process leaves its line open.
        line_break = "\n" if peers.process == 0 else ""
        print(f"{line_break}error: {ended}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        end(_STATUS)


def _client() -> Any | None:
    """The client of ``jax.distributed``'s key-value store, where this version of JAX has it."""
    try:
        client = importlib.import_module("jax._src.distributed").global_state.client
    except (ImportError, AttributeError):
        return None
    return client if all(hasattr(client, name) for name in _METHODS) else None
