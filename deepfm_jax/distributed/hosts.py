"""Several processes as one job: the primary one, and what all of them must agree on.

A job usually has one process on each host. All run the same program on the same arrays; only the
primary process, the first one, writes logs and reports. In a job of one process these functions
call what they are given and return it.
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
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def run_on_all(function: Callable[[], T]) -> T:
    """Calls ``function`` in every process and returns its result; all wait for all.

    Raises:
      PeerError: where ``function`` failed in another process. The process where it failed raises
        its own exception, whatever that is.
    """
    if jax.process_count() == 1:
        return function()
    result, failure = None, None
    try:
        result = function()
    except Exception as error:  # The others wait in the exchange below, whatever went wrong here.
        failure = error
    messages = _gather_texts("" if failure is None else describe(failure))
    if failure is not None:
        raise failure
    for process, text in enumerate(messages):
        if text:
            raise PeerError(f"process {process}: {text}")
    return result  # pyright: ignore[reportReturnType]


def run_on_primary(function: Callable[[], Any]) -> None:
    """Calls ``function`` in the primary process alone; all wait for its end.

    Raises:
      PeerError: see ``run_on_all``.
    """
    run_on_all(function if is_primary() else lambda: None)


def check_same(what: str, text: str) -> None:
    """Checks that all processes have the same ``text``.

    Raises:
      UserError: in every process, where one has another.
    """
    if jax.process_count() == 1:
        return
    told = _gather_texts(hashlib.sha256(text.encode()).hexdigest())
    different = [process for process, other in enumerate(told) if other != told[0]]
    if different:
        raise UserError(
            f"process {different[0]} has another {what} than process 0; all {len(told)} processes "
            "of a job must have the same"
        )


def gather_rows(arrays: Any) -> Any:
    """Arrays of all processes one after another, as NumPy, in every process.

    Args:
      arrays: Pytree of arrays of this process, of 32 bits or less, [rows, ...] of one shape in all
        processes.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def from_primary(rows: np.ndarray) -> np.ndarray:
    """The rows that the primary process has, in every process.

    Args:
      rows: Numbers of 32 bits or less, [rows, ...], of one shape in all processes. Devices get some
        at a time.
    """
    if jax.process_count() == 1:
        return rows
    found = np.empty_like(rows)
    for start in range(0, len(rows), _SENT_ROWS):
        part = slice(start, start + _SENT_ROWS)
        found[part] = multihost_utils.broadcast_one_to_all(rows[part])
    return found


def own_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array, split over all devices, that lie on those of this process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def is_asked_to_stop(step: int) -> bool:
    """Whether the job's scheduler wants its machines back, and all processes stop at ``step``.

    A process that gets SIGTERM tells the others, and they agree on a step that none has passed.
    Every process must ask at every step.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def _gather_texts(text: str) -> list[str]:
    """The texts of all processes, each cut to ``_MESSAGE_BYTES``."""
    data = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = text.encode()[:_MESSAGE_BYTES]
    data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(data), np.uint8)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in gathered]
