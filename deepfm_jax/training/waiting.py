"""How long the devices had nothing to do for want of the next batch."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TimedBatches(Generic[T]):
    """Batches, and for how long the devices stood idle before each.

    The host runs ahead of the devices, so time that it spends on a batch is no one's loss while a
    step is under way. A wait counts where the last step has ended by its end. When within the wait
    the step ended cannot be known, so what is counted is at most one step per batch too long.

    Attributes:
      waited: Seconds before the batch that was given last.
    """

    def __init__(self, batches: Iterable[T]):
        self._batches = iter(batches)
        self._last: Any = None
        self.waited = 0.0

    def __iter__(self) -> Iterator[T]:
        while True:
            started = time.perf_counter()
            try:
                batch = next(self._batches)
            except StopIteration:
                return
            idle = self._last is None or self._last.is_ready()
            self.waited = time.perf_counter() - started if idle else 0.0
            yield batch

    def started(self, output: Any) -> None:
        """Tells of a step that the devices have been given, by one of its outputs (an array)."""
        self._last = output
