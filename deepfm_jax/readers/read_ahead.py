"""Prepares the next item in a thread; pyarrow and NumPy release the GIL, so both run at once."""

import collections
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def read_ahead(items: Iterable[_Item], depth: int = 1) -> Generator[_Item]:
    """Yields the same items in the same order, computing up to ``depth`` of them ahead.

    An error is raised in place of its item. Closing the generator stops the thread and closes
    ``items``.
    """
    iterator = iter(items)
    try:
        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = collections.deque(thread.submit(next, iterator, _END) for _ in range(depth))
            try:
                while (item := ahead.popleft().result()) is not _END:
                    ahead.append(thread.submit(next, iterator, _END))
                    yield item  # pyright: ignore[reportReturnType]
            finally:
                for future in ahead:
                    future.cancel()
    finally:
        # The thread has ended, so the iterator is not running.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
