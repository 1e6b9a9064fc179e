"""Coordination of the processes of a job: the primary process, and agreement of all.

A job usually has one process per host. All run the same program on the same arrays; only the
primary process, the first one, writes logs and reports. In a job of one process, these functions
apply to that process alone, without communication.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from deepfm_jax.errors import PeerError, UserError, describe

T = TypeVar("T")

_MESSAGE_BYTES = 2048
_SENT_ROWS = 1 << 16


def is_primary() -> bool:
    """Whether this is the primary process, which writes and prints."""
    return jax.process_index() == 0


def run_on_all(function: Callable[[], T]) -> T:
    """Calls ``function`` in every process, waits for all processes, and returns the result.

    Raises:
      PeerError: ``function`` failed in another process. A process in which it failed raises the
        original exception.
    """
    if jax.process_count() == 1:
        return function()
    result, failure = None, None
    try:
        result = function()
    except Exception as error:  # Any failure must still reach the exchange, where the others wait.
        failure = error
    messages = _gather_texts("" if failure is None else describe(failure))
    if failure is not None:
        raise failure
    for process, text in enumerate(messages):
        if text:
            raise PeerError(f"process {process}: {text}")
    return result  # pyright: ignore[reportReturnType]


def run_on_primary(function: Callable[[], Any]) -> None:
    """Calls ``function`` in the primary process only; all processes wait until it returns.

    Raises:
      PeerError: see ``run_on_all``.
    """
    run_on_all(function if is_primary() else lambda: None)


def check_same(what: str, text: str) -> None:
    """Checks that all processes have the same ``text``.

    Raises:
      UserError: the text of a process differs; raised in every process.
    """
    if jax.process_count() == 1:
        return
    digests = _gather_texts(hashlib.sha256(text.encode()).hexdigest())
    different = [process for process, digest in enumerate(digests) if digest != digests[0]]
    if different:
        raise UserError(
            f"the {what} of process {different[0]} differs from that of process 0; all "
            f"{len(digests)} processes of a job must have the same"
        )


def gather_rows(arrays: Any) -> Any:
    """The concatenated arrays of all processes, as NumPy arrays, in every process.

    Args:
      arrays: Pytree of this process's arrays [rows, ...], of at most 32 bits and of the same shapes
        in all processes.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def from_primary(rows: np.ndarray) -> np.ndarray:
    """The rows of the primary process, in every process.

    Args:
      rows: Numbers of at most 32 bits, [rows, ...], of the same shape in all processes. They are
        sent to devices in chunks.
    """
    if jax.process_count() == 1:
        return rows
    found = np.empty_like(rows)
    for start in range(0, len(rows), _SENT_ROWS):
        part = slice(start, start + _SENT_ROWS)
        found[part] = multihost_utils.broadcast_one_to_all(rows[part])
    return found


def own_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array, sharded over all devices, that are on devices of this process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def is_asked_to_stop(step: int) -> bool:
    """Whether the job's scheduler preempts it, and all processes stop at ``step``.

    A process that receives SIGTERM notifies the others, and they agree on a step that none has
    passed. Every process must call this at every step.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def _gather_texts(text: str) -> list[str]:
    """The texts of all processes, each truncated to ``_MESSAGE_BYTES``."""
    data = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = text.encode()[:_MESSAGE_BYTES]
    data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(data), np.uint8)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in gathered]
