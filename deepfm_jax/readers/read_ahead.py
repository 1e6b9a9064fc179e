"""Work on one item while a thread prepares the next: pyarrow and NumPy let both run at once."""

import collections
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def read_ahead(items: Iterable[_Item], depth: int = 1) -> Generator[_Item]:
    """The same items in the same order, up to ``depth`` of them computed ahead of their use.

    An error comes where the item would have come. Closed, it ends the work that is under way.
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
        # The thread has ended, and what it was at with it.
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
