"""The order of one pass over a split, a function of a few numbers: streams of windows of blocks.

A pass is a permutation of all blocks, cut into *streams* of equal length. A batch takes equally
many examples from each stream, so a host that feeds the part of a batch that comes from one stream
reads only the blocks of that stream; the order does not depend on which host reads it. Within a
stream, examples are permuted in windows of ``WINDOW_BLOCKS`` blocks: memory stays bounded, and
small data sets are shuffled completely.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

# A quarter of a million examples, with the blocks that ``prepare`` writes.
WINDOW_BLOCKS = 64


class _Piece(NamedTuple):
    """Examples ``start`` to ``stop`` of a block."""

    block: int
    start: int
    stop: int


class Stream:
    """One stream of a pass: what each of its windows reads, and in which order.

    All streams have ceil(examples / streams) examples. A stream that is one short repeats an
    example under mask 0.

    Attributes:
      count: Number of windows.
      first: The window of the first example that is not skipped.
    """

    def __init__(
        self,
        source: Any,
        sizes: Int64[np.ndarray, "blocks"],
        *,
        seed: int | None = None,
        epoch: int = 0,
        index: int = 0,
        streams: int = 1,
        skip_rows: int = 0,
    ):
        """Plans the windows of one stream over the blocks of ``source``.

        Args:
          source: Sequence of blocks, with ``__getitems__``.
          sizes: Number of examples in each block.
          seed: Seed of the shuffle; None keeps the order of blocks and of their examples.
          epoch: Each epoch has its own permutation.
          index: Index of the stream.
          streams: Number of streams.
          skip_rows: Examples of the stream to skip.
        """
        self._source = source
        self._key = None if seed is None else (seed, epoch)
        blocks = np.arange(len(source))
        if self._key is not None:
            blocks = np.random.default_rng(self._key).permutation(blocks)
        ends = np.cumsum(sizes[blocks])
        rows = int(ends[-1])
        start, stop = rows * index // streams, rows * (index + 1) // streams

        def pieces(start: int, stop: int) -> list[_Piece]:
            found = []
            for place in range(int(np.searchsorted(ends, start, side="right")), len(blocks)):
                begin = int(ends[place] - sizes[blocks[place]])
                if begin >= stop:
                    break
                low, high = max(start - begin, 0), min(stop, int(ends[place])) - begin
                if low < high:
                    found.append(_Piece(int(blocks[place]), low, high))
            return found

        own = pieces(start, stop)
        self._windows = [
            own[place : place + WINDOW_BLOCKS] for place in range(0, len(own), WINDOW_BLOCKS)
        ] or [[]]
        self.count = len(self._windows)
        # Numbered by blocks of the pass, so that every stream has its own permutations.
        self._number = int(np.searchsorted(ends, start, side="right")) // WINDOW_BLOCKS
        filled = -(-rows // streams) - (stop - start)
        again = min(start, rows - 1)
        self._filler = pieces(again, again + 1) if filled else []
        lengths = [sum(piece.stop - piece.start for piece in part) for part in self._windows]
        lengths[-1] += filled
        window_ends = np.cumsum(lengths)
        self.first = int(np.searchsorted(window_ends, skip_rows, side="right"))
        self._skip = skip_rows - (int(window_ends[self.first - 1]) if self.first else 0)

    def load(self, window: int, columns: tuple[str, ...]) -> list[np.ndarray]:
        """Some columns of a window in the order of the pass, followed by the mask [examples]."""
        filler = self._filler if window == self.count - 1 else []
        pieces = self._windows[window] + filler
        blocks = self._source.__getitems__([piece.block for piece in pieces])
        mask = np.ones(sum(piece.stop - piece.start for piece in pieces), np.float32)
        mask[len(mask) - len(filler) :] = 0
        rows = [
            np.concatenate(
                [block[name][p.start : p.stop] for p, block in zip(pieces, blocks, strict=True)]
            )
            for name in columns
        ]
        if self._key is not None:
            rng = np.random.default_rng((*self._key, self._number + window))
            order = rng.permutation(len(mask) - len(filler))
            # The filler stays at the end, so that only the last batch is not full.
            order = np.append(order, np.arange(len(order), len(mask)))
            rows = [column[order] for column in rows]
        start = self._skip if window == self.first else 0
        return [column[start:] for column in (*rows, mask)]
