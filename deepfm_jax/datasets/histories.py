"""Histories of users: the earlier events of each event's user, without looking ahead."""

import dataclasses

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int32, Int64


@dataclasses.dataclass(frozen=True)
class Histories:
    """The history of every event, as a range of one shared array.

    Attributes:
      items: Items of the events that count, user by user, oldest first.
      starts: Start of each event's history in ``items``.
      ends: End of each event's history in ``items``.
    """

    items: Int64[np.ndarray, "counting"]
    starts: Int32[np.ndarray, "events"]
    ends: Int32[np.ndarray, "events"]

    def lists(self, events: Int64[np.ndarray, "chosen"]) -> pa.ListArray:
        """The histories of the events with these indices; newest item last."""
        firsts = self.starts[events].astype(np.int64)
        lengths = self.ends[events] - firsts
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        chosen = np.arange(offsets[-1]) + np.repeat(firsts - offsets[:-1], lengths)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.items[chosen]))


def past_items(
    users: Int64[np.ndarray, "events"],
    times: Int64[np.ndarray, "events"],
    items: Int64[np.ndarray, "events"],
    counts: Bool[np.ndarray, "events"],
    max_length: int,
) -> Histories:
    """The newest ``max_length`` items of each event's user at strictly earlier times.

    Events of one user at one time do not see each other, regardless of their order. In a history
    they keep the order of the events. Memory is about ten numbers per event, however long histories
    are.

    Args:
      users: User of each event.
      times: Time of each event.
      items: Item of each event.
      counts: Which events become part of later histories.
      max_length: Most items in a history.
    """
    order = np.lexsort((times, users))  # Stable.
    user, time, counting = users[order], times[order], counts[order]
    before = np.cumsum(counting) - counting
    new_user = np.diff(user, prepend=user[:1] - 1) != 0
    new_time = new_user | (np.diff(time, prepend=time[:1]) != 0)
    # Counting events before the first event of this user and time, and before the user's first.
    ends = before[_run_starts(new_time)]
    starts = np.maximum(before[_run_starts(new_user)], ends - max_length)
    found = np.empty((2, len(order)), np.int32)
    found[:, order] = starts, ends
    return Histories(items=items[order][counting], starts=found[0], ends=found[1])


def _run_starts(begins: Bool[np.ndarray, "events"]) -> Int64[np.ndarray, "events"]:
    """For each event, the index of the last run start at or before it."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
