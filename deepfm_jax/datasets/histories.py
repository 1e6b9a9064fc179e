"""What a user did before: for every event the user's earlier ones, without looking ahead."""

import dataclasses

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int32, Int64


@dataclasses.dataclass(frozen=True)
class Histories:
    """The history of every event, as a range of one array that all of them share.

    Attributes:
      items: Of the events that count, user by user, oldest first.
      starts: Where the history of each event begins in ``items``.
      ends: Where it ends.
    """

    items: Int64[np.ndarray, "counting"]
    starts: Int32[np.ndarray, "events"]
    ends: Int32[np.ndarray, "events"]

    def lists(self, events: Int64[np.ndarray, "chosen"]) -> pa.ListArray:
        """The histories of some of the events, by their indices; newest item last."""
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
    """The items of each event's user at strictly earlier times, the newest ``max_length`` of them.

    Events of one user and one time do not see each other, whatever their order. In a history they
    stand in the order of the events. Memory is some ten numbers for each event, however long
    histories are.

    Args:
      users: Of each event.
      times: Likewise.
      items: Likewise.
      counts: Which events become part of later histories.
      max_length: Most items of a history.
    """
    order = np.lexsort((times, users))  # Stable.
    user, time, counting = users[order], times[order], counts[order]
    before = np.cumsum(counting) - counting
    new_user = np.diff(user, prepend=user[:1] - 1) != 0
    new_time = new_user | (np.diff(time, prepend=time[:1]) != 0)
    # All counting events before the first of this user and time, and before the first of the user.
    ends = before[_run_starts(new_time)]
    starts = np.maximum(before[_run_starts(new_user)], ends - max_length)
    found = np.empty((2, len(order)), np.int32)
    found[:, order] = starts, ends
    return Histories(items=items[order][counting], starts=found[0], ends=found[1])


def _run_starts(begins: Bool[np.ndarray, "events"]) -> Int64[np.ndarray, "events"]:
    """Of each event the index of the last one, up to itself, at which a run begins."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
