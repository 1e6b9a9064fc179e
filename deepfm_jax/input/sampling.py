"""Negative down-sampling: a pass over a random share of the negatives and all other examples.

The *number* of negatives kept from each block is the same in every epoch, so the position of an
example in the pass follows from counts, and resuming does not read what it skips. *Which* negatives
are kept is drawn anew in each epoch, from seed, epoch and block only. A model trained this way
scores the sample; ``metrics.calibration.correct_logits`` corrects its scores to all examples.

A pass keeps every example that lacks the label. Such an example is no negative and does not count
in the loss, so exactly the share w of the negatives does, and corrected scores stay unbiased.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

# The order of a pass draws from (seed, epoch, window); the fourth number separates these draws.
_DRAW = 1


def kept_negatives(
    negatives: Int64[np.ndarray, "blocks"], rate: float
) -> Int64[np.ndarray, "blocks"]:
    """Number of negatives of each block that a pass keeps.

    Of the first n negatives of the data set it keeps rate n, rounded, so each block keeps its share
    to within one example, and the whole data set to within half an example.

    Deviation: He et al. draw each example independently, which makes the number of examples random.

    Args:
      negatives: Number of negatives in each block.
      rate: w in (0, 1], the share that is kept.

    Source: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 6.3.
    """
    ends = np.floor(rate * np.cumsum(negatives) + 0.5)
    return np.diff(ends, prepend=0).astype(np.int64)


class SampledBlocks:
    """The blocks of one epoch, without the negatives that it drops.

    A sequence of blocks for ``shuffle.Stream``. Examples that are kept stay in order.

    Attributes:
      sizes: Number of examples in each block, [blocks].
    """

    def __init__(
        self,
        source: Any,
        label: int,
        negatives: Int64[np.ndarray, "blocks"],
        rows: Int64[np.ndarray, "blocks"],
        rate: float,
        key: tuple[int, int],
    ):
        """Samples from the blocks of ``source``.

        Args:
          source: Sequence of blocks, with ``__getitems__``.
          label: Column of ``labels`` that decides which examples are negative: label 0, not NaN.
          negatives: Number of negatives in each block.
          rows: Number of examples in each block.
          rate: w, the share of the negatives that is kept.
          key: Seed and epoch.
        """
        self._source = source
        self._label = label
        self._kept = kept_negatives(negatives, rate)
        self._key = key
        self.sizes = rows - negatives + self._kept

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        blocks = self._source.__getitems__(indices)
        return [self._thinned(index, block) for index, block in zip(indices, blocks, strict=True)]

    def _thinned(self, index: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept = block["labels"][:, self._label] != 0
        rng = np.random.default_rng((*self._key, index, _DRAW))
        drawn = rng.choice(np.flatnonzero(~kept), self._kept[index], replace=False, shuffle=False)
        kept[drawn] = True
        return {name: array[kept] for name, array in block.items()}
