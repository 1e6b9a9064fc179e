"""GAUC: AUC within groups of examples, usually those of a user."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Examples = Float64[np.ndarray, "examples"]


class GroupAuc(NamedTuple):
    """A mean of AUCs, and the share of the examples it covers.

    Attributes:
      auc: Mean over the groups that have both classes; None if no group has both.
      coverage: Weight of the examples of these groups, as a share of the weight of all examples.
    """

    auc: float | None
    coverage: float


def group_auc(
    logits: Examples,
    labels: Examples,
    weights: Examples,
    groups: Int64[np.ndarray, "examples"],
) -> GroupAuc:
    """sum_g n_g AUC_g / sum_g n_g over the groups g that have both classes, n_g their weight.

    AUC_g is P(positive scores above negative) within group g; ties count half. Examples are sorted
    once by group and logit, and running sums then give every AUC: O(n log n) for n examples.

    Args:
      logits: Finite scores.
      labels: 0 or 1.
      weights: Above 0; 1 for an unweighted example.
      groups: The group of each example; a negative number is no group, and the example is left out.

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
    # A tie is a run of examples of one group and one logit.
    ties = np.union1d(starts, np.flatnonzero(np.diff(logits)) + 1)
    tied_positive, tied_negative = (np.add.reduceat(array, ties) for array in (positive, negative))
    first_tie = np.searchsorted(ties, starts)
    below = np.cumsum(tied_negative) - tied_negative
    # Only negatives of the same group: subtract those of all groups before it.
    below -= np.repeat(below[first_tie], np.diff(np.append(first_tie, len(ties))))
    won = np.add.reduceat(tied_positive * (below + tied_negative / 2), first_tie)
    of_group = np.add.reduceat(np.stack([positive, negative]), starts, axis=1)
    both = (of_group > 0).all(axis=0)
    if not both.any():
        return GroupAuc(None, 0.0)
    aucs = won[both] / of_group[:, both].prod(axis=0)
    counted = of_group[:, both].sum(axis=0)
    return GroupAuc(float(np.average(aucs, weights=counted)), float(counted.sum() / all_weight))
