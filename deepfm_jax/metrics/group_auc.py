"""GAUC: how well rows are ranked within each group, a user's as a rule."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Rows = Float64[np.ndarray, "rows"]


class GroupAuc(NamedTuple):
    """A mean of AUCs, and how much of the rows it speaks for.

    Attributes:
      auc: Mean over the groups that have both classes; None where there is none.
      coverage: Weight of the rows of these groups, as a share of that of all rows.
    """

    auc: float | None
    coverage: float


def group_auc(
    logits: Rows, labels: Rows, weights: Rows, groups: Int64[np.ndarray, "rows"]
) -> GroupAuc:
    """sum_g n_g AUC_g / sum_g n_g over the groups g that have both classes, n_g their weight.

    AUC_g is P(positive scores above negative) of the group's rows, ties counting half. Rows are
    sorted by group and logit once, and every AUC follows from running sums: O(rows log rows).

    Args:
      logits: Finite scores.
      labels: 0 or 1.
      weights: Above 0; 1 for a plain row.
      groups: The group of each row; rows of a negative one are in none, and left out.

    Source: Zhou et al. 2018, Deep Interest Network, Eq. 14 (arXiv 1706.06978), where n_g is the
      number of a user's impressions.
    """
    all_weight = weights.sum()
    inside = groups >= 0
    if not inside.any():
        return GroupAuc(None, 0.0)
    logits, labels, weights, groups = (array[inside] for array in (logits, labels, weights, groups))
    order = np.lexsort((logits, groups))
    logits, groups = logits[order], groups[order]
    positive = (weights * labels)[order]
    negative = (weights * (1 - labels))[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    # A tie is a run of rows of one group and one logit.
    ties = np.union1d(starts, np.flatnonzero(np.diff(logits)) + 1)
    tied_positive, tied_negative = (np.add.reduceat(array, ties) for array in (positive, negative))
    first_tie = np.searchsorted(ties, starts)
    below = np.cumsum(tied_negative) - tied_negative
    # Negatives below in the group alone: without those of all groups before it.
    below -= np.repeat(below[first_tie], np.diff(np.append(first_tie, len(ties))))
    won = np.add.reduceat(tied_positive * (below + tied_negative / 2), first_tie)
    of_group = np.add.reduceat(np.stack([positive, negative]), starts, axis=1)
    both = (of_group > 0).all(axis=0)
    if not both.any():
        return GroupAuc(None, 0.0)
    aucs = won[both] / of_group[:, both].prod(axis=0)
    counted = of_group[:, both].sum(axis=0)
    return GroupAuc(float(np.average(aucs, weights=counted)), float(counted.sum() / all_weight))
