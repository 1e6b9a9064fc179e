"""Groups of rows, with confidence intervals of their positive rates."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from deepfm_jax.profiling.counts import COUNTS

# The normal's 97.5% quantile, for intervals of 95%.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of one value, bucket, hour or split.

    Attributes:
      name: The value, bucket, hour or split.
      rows: Number of rows.
      labelled: Number of rows that have the label.
      positives: Number of rows with label 1.
      share: Share of all rows that are grouped.
      rate: ``positives / labelled``; None without labelled rows.
      low: Lower end of its 95% interval (see ``wilson_interval``); None without labelled rows.
      high: Upper end.
    """

    name: str
    rows: int
    labelled: int
    positives: int
    share: float
    rate: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, name: str, rows: int, labelled: int, positives: int, total: int) -> "Group":
        """Creates a group of ``rows`` out of ``total`` rows."""
        share = rows / total if total else 0.0
        if not labelled:
            return cls(name, int(rows), 0, 0, share, None, None, None)
        low, high = wilson_interval(positives, labelled)
        counts = int(rows), int(labelled), int(positives)
        return cls(name, *counts, share, positives / labelled, low, high)


def wilson_interval(positives: int, rows: int) -> tuple[float, float]:
    """The 95% confidence interval of a rate of ``positives`` in ``rows`` > 0 rows.

    With p = positives / n and z = 1.96: (p + z^2/2n +- z sqrt(p (1 - p) / n + z^2/4n^2)) /
    (1 + z^2/n). Unlike p +- z sqrt(p (1 - p) / n) it stays in [0, 1] and is wide for few rows, even
    if p is 0 or 1, so that rare values are not over-interpreted.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    rate, square = positives / rows, _Z * _Z
    centre = rate + square / (2 * rows)
    half = _Z * math.sqrt(rate * (1 - rate) / rows + square / (4 * rows * rows))
    scale = 1 + square / rows
    # Rounding may exceed the ends of [0, 1].
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def groups_by(
    keys: np.ndarray, counts: pa.Table, names: Sequence[str], total: int
) -> tuple[Group, ...]:
    """Sums a table of counts by key.

    Args:
      keys: Key of each row of ``counts``, from 0 to ``len(names) - 1``.
      counts: Columns ``COUNTS`` of ``profiling.counts``.
      names: Name of each key.
      total: Number of rows to which the groups' shares refer.
    """
    rows, labelled, positives = (
        np.bincount(keys, weights=counts[column].to_numpy(), minlength=len(names))
        .astype(int)
        .tolist()
        for column in COUNTS
    )
    return tuple(
        Group.of(name, rows[key], labelled[key], positives[key], total)
        for key, name in enumerate(names)
    )
