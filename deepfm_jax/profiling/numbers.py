"""Statistics of a column of numbers: its distribution, and the positive rate by bucket."""

import dataclasses

import numpy as np
import pyarrow as pa

from deepfm_jax.profiling.groups import Group, groups_by

_BUCKETS = 10
SHOWN_PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Statistics of the training rows that have a number.

    Attributes:
      mean: Mean of the numbers.
      std: Standard deviation, with n (not n - 1) in the denominator.
      negative: Share of numbers below 0.
      zero: Share of zeros.
      percentiles: The 0th to the 100th, [101]: the smallest value that p percent do not exceed.
      edges: Edges of the buckets, ascending: x is in bucket #{edges <= x}.
      buckets: Deciles of the training rows, named by their smallest and largest values; fewer than
        ten if one value has more than a tenth of the rows.
    """

    mean: float
    std: float
    negative: float
    zero: float
    percentiles: tuple[float, ...]
    edges: tuple[float, ...]
    buckets: tuple[Group, ...]


def describe_numbers(counts: pa.Table) -> Numbers:
    """Computes the statistics from non-empty counts (``value``, ``COUNTS``), sorted by value."""
    numbers, rows = counts["value"].to_numpy(), counts["rows"].to_numpy()
    total, cumulated = int(rows.sum()), np.cumsum(rows)
    mean = float(np.dot(numbers, rows) / total)
    std = float(np.sqrt(np.dot((numbers - mean) ** 2, rows) / total))
    percentiles = numbers[np.searchsorted(cumulated, np.arange(101) * total / 100)]
    ranks = np.arange(1, _BUCKETS) * total / _BUCKETS
    cuts = np.unique(numbers[np.searchsorted(cumulated, ranks, side="right")])
    edges = cuts[cuts > numbers[0]]
    keys = np.searchsorted(edges, numbers, side="right")
    names = []
    for bucket in range(len(edges) + 1):
        inside = numbers[keys == bucket]
        ends = dict.fromkeys((number_text(inside[0]), number_text(inside[-1])))
        names.append(" to ".join(ends))
    return Numbers(
        mean=mean,
        std=std,
        negative=float(rows[numbers < 0].sum() / total),
        zero=float(rows[numbers == 0].sum() / total),
        percentiles=tuple(map(float, percentiles)),
        edges=tuple(map(float, edges)),
        buckets=groups_by(keys, counts, names, total),
    )


def number_text(number: int | float) -> str:
    """Formats whole numbers in full up to 15 digits, and others to six significant digits."""
    whole = float(number).is_integer() and abs(number) < 1e15
    return str(int(number)) if whole else f"{number:.6g}"
