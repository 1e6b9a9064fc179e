"""Measurement of the time in which the devices are idle, waiting for the next batch."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TimedBatches(Generic[T]):
    """Iterates over batches and measures how long the devices were idle before each.

    The host runs ahead of the devices, so the time that it spends on a batch costs nothing while a
    step is still running. A wait counts if the last step has ended by its end. When the step ended
    within the wait is unknown, so the count exceeds the truth by at most one step per batch.

    Attributes:
      waited: Seconds of waiting before the most recent batch.
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
        """Registers a step that was dispatched, by one of its outputs (an array)."""
        self._last = output
