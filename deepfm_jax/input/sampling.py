"""Negative down-sampling: a pass over all positive rows and a drawn share of the negative ones.

How many negatives of each block a pass keeps is the same in every epoch, so the position of a row
in the pass follows from numbers and nothing that is skipped is read; *which* ones it keeps is drawn
anew in each epoch, from seed, epoch and block alone. The scores of a model that is trained so are
those of the sample; ``metrics.calibration.correct_logits`` turns them into scores of the rows as
they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

# The order of a pass draws from (seed, epoch, window); the fourth number keeps these draws apart.
_DRAW = 1


def kept_negatives(
    negatives: Int64[np.ndarray, "blocks"], rate: float
) -> Int64[np.ndarray, "blocks"]:
    """How many negative rows of each block a pass keeps.

    Of the first n negatives of the data set it keeps rate n, rounded: so each block gives its share
    to within one row, and the whole to within half a row.

    Deviation: He et al. draw for each row by itself, and the number of rows is a matter of chance.

    Args:
      negatives: Negative rows of each block.
      rate: w in (0, 1], the share that is kept.

    Source: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 6.3.
    """
    ends = np.floor(rate * np.cumsum(negatives) + 0.5)
    return np.diff(ends, prepend=0).astype(np.int64)


class SampledBlocks:
    """The blocks of one epoch, without the negative rows that it does not keep.

    A sequence of blocks as ``order.Stream`` reads it. Rows that are kept stay in their order.

    Attributes:
      sizes: Rows of each block, [blocks].
    """

    def __init__(
        self,
        source: Any,
        label: int,
        positives: Int64[np.ndarray, "blocks"],
        rows: Int64[np.ndarray, "blocks"],
        rate: float,
        key: tuple[int, int],
    ):
        """Thins the blocks of ``source``.

        Args:
          source: Sequence of blocks, with ``__getitems__``.
          label: Column of ``labels`` that says which rows are positive.
          positives: Positive rows of each block.
          rows: Rows of each block.
          rate: w, the share of the negatives that is kept.
          key: Seed and epoch.
        """
        self._source = source
        self._label = label
        self._kept = kept_negatives(rows - positives, rate)
        self._key = key
        self.sizes = positives + self._kept

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        blocks = self._source.__getitems__(indices)
        return [self._thinned(index, block) for index, block in zip(indices, blocks, strict=True)]

    def _thinned(self, index: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        kept = block["labels"][:, self._label] > 0
        rng = np.random.default_rng((*self._key, index, _DRAW))
        drawn = rng.choice(np.flatnonzero(~kept), self._kept[index], replace=False, shuffle=False)
        kept[drawn] = True
        return {name: array[kept] for name, array in block.items()}
