"""Exact metrics of a binary classifier over a whole split, as a mergeable state.

A state keeps every (logit, label, weight) of the split, 24 bytes per example, because the AUC of a
split is not the mean of batch AUCs. Make one state per batch, concatenate them, compute once.
Everything is float64, whatever the model's compute dtype. Nothing is approximated: for 45 million
examples (Criteo) a state takes about 1 GB of host memory.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from sklearn.metrics import average_precision_score, roc_auc_score

from deepfm_jax.errors import UserError
from deepfm_jax.metrics.group_auc import group_auc

Examples = Float64[np.ndarray, "examples"]
Bins = Float64[np.ndarray, "bins"]

_CALIBRATION_BINS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted and observed rates in bins of equal mass, in ascending order of the prediction.

    Attributes:
      prediction: Weighted mean predicted probability of each bin.
      observed: Weighted share of positive labels in each bin.
      count: Weight of each bin; the number of its examples if every weight is 1.
      standard_error: sqrt(r (1 - r) / n), the binomial standard error of ``observed`` r, with the
        effective number of examples n = (sum w)^2 / sum w^2. It is 0 if r is 0 or 1.
    """

    prediction: Bins
    observed: Bins
    count: Bins
    standard_error: Bins

    @property
    def expected_calibration_error(self) -> float:
        """ECE = sum_b (count_b / sum count) |observed_b - prediction_b|.

        Source: Naeini, Cooper and Hauskrecht 2015 (AAAI); bins of equal mass rather than of equal
        width as in Nixon et al. 2019 (arXiv:1904.01685), because click rates cluster near 0.
        """
        return float(np.average(np.abs(self.observed - self.prediction), weights=self.count))


@dataclasses.dataclass(frozen=True, eq=False)
class BinaryMetrics:
    """The examples of a split that have been evaluated so far, without padding.

    ``from_batch`` checks its arguments and creates a state. Merging is associative, and commutative
    up to the order of examples, on which no metric depends.

    Attributes:
      logits: log(p / (1 - p)) of each example.
      labels: 0 or 1.
      weights: Positive; 1 for an unweighted example.
      groups: The group of each example, negative for no group; None if examples have no groups.
    """

    logits: Examples
    labels: Examples
    weights: Examples
    groups: Int64[np.ndarray, "examples"] | None = None

    @classmethod
    def empty(cls) -> "BinaryMetrics":
        """The state without examples, the neutral element of ``merge``."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))

    @classmethod
    def from_batch(
        cls,
        logits: Shaped[Any, "batch"],
        labels: Shaped[Any, "batch"],
        mask: Shaped[Any, "batch"] | None = None,
        groups: Int64[np.ndarray, "batch"] | None = None,
    ) -> "BinaryMetrics":
        """The state of one batch; copies device arrays to the host.

        Args:
          logits: Scores of any float dtype; anything for padding.
          labels: 0 or 1; anything for padding.
          mask: Weights >= 0, or booleans; examples of weight 0 are padding and are dropped. None
            gives every example the weight 1.
          groups: The group of each example, negative for no group.

        Raises:
          UserError: shapes differ or are not [B], a weight is negative or not finite, or a label is
            neither 0 nor 1.
        """
        if mask is None:
            mask = np.ones(np.shape(logits))
        z, y, w = (np.asarray(array).astype(np.float64) for array in (logits, labels, mask))
        if z.ndim != 1 or not z.shape == y.shape == w.shape:
            raise UserError(
                f"logits {z.shape}, labels {y.shape} and mask {w.shape} must all have one shape"
                " [batch]"
            )
        if not np.all((w >= 0) & (w < np.inf)):
            raise UserError("the mask has a negative or non-finite weight; weights must be >= 0")
        kept = w > 0
        z, y, w = z[kept], y[kept], w[kept]
        odd = y[(y != 0) & (y != 1)]
        if odd.size:
            raise UserError(f"label {odd[0]:g} is neither 0 nor 1 ({odd.size} of {y.size} labels)")
        return cls(z, y, w, None if groups is None else groups[kept])

    def merge(self, other: "BinaryMetrics") -> "BinaryMetrics":
        """The state of the examples of both. Merge many with ``concatenate``, which copies once."""
        return self.concatenate([self, other])

    @classmethod
    def concatenate(cls, states: Sequence["BinaryMetrics"]) -> "BinaryMetrics":
        """The state of the examples of all ``states``, in linear time; may be empty.

        Raises:
          UserError: some states have groups and others do not.
        """
        states = [state for state in states if state.logits.size]
        if not states:
            return cls.empty()
        groups = [state.groups for state in states if state.groups is not None]
        if groups and len(groups) < len(states):
            raise UserError("some of the examples to merge have groups and others do not")
        return cls(
            np.concatenate([state.logits for state in states]),
            np.concatenate([state.labels for state in states]),
            np.concatenate([state.weights for state in states]),
            np.concatenate(groups) if groups else None,
        )

    def probabilities(self) -> Examples:
        """sigmoid(logits), without overflow."""
        return np.exp(-np.logaddexp(0.0, -self.logits))

    def compute(self, *, split: str = "") -> dict[str, float]:
        """All metrics of the examples so far, weighted.

        ======================================  =================================================
        ``auc``                                 P(positive scores above negative), ties count half
        ``pr_auc``                              average precision
        ``logloss``                             mean of max(z, 0) - z y + log(1 + exp(-|z|)), nats;
                                                no probability is clipped
        ``normalized_entropy``                  ``logloss`` / entropy of the base rate; below 1 is
                                                better than predicting the base rate
        ``calibration``                         sum of predictions / sum of labels; 1 is perfect
        ``expected_calibration_error``          over 20 bins of equal mass, see ``Reliability``
        ``positive_rate``                       base rate
        ``rows``                                number of examples without padding, unweighted
        ``gauc``, ``gauc_coverage``             see ``group_auc``; present if examples have groups
                                                and at least one group has both classes
        ======================================  =================================================

        Args:
          split: Name of the split, for error messages.

        Raises:
          UserError: there are no examples, all labels are of one class, or a logit is not finite.

        Source: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 3
          (normalized entropy and calibration).
        """
        self._check(split)
        z, y, w = self.logits, self.labels, self.weights
        both = np.unique(y)
        if both.size == 1:
            raise UserError(
                f"{_name(split)}: all {y.size} labels are {both[0]:g}; AUC and normalized entropy"
                " need both classes"
            )
        positive_rate = float(np.average(y, weights=w))
        # Ranks and losses use logits, because large ones round to a probability of exactly 1.
        losses = np.maximum(z, 0.0) - z * y + np.log1p(np.exp(-np.abs(z)))
        logloss = float(np.average(losses, weights=w))
        return {
            "auc": float(roc_auc_score(y, z, sample_weight=w)),
            "pr_auc": float(average_precision_score(y, z, sample_weight=w)),
            "logloss": logloss,
            "normalized_entropy": logloss / _entropy(positive_rate),
            "calibration": float(np.sum(w * self.probabilities()) / np.sum(w * y)),
            "expected_calibration_error": self.reliability(split=split).expected_calibration_error,
            "positive_rate": positive_rate,
            "rows": float(y.size),
            **self._of_groups(),
        }

    def _of_groups(self) -> dict[str, float]:
        if self.groups is None:
            return {}
        auc, coverage = group_auc(self.logits, self.labels, self.weights, self.groups)
        return {} if auc is None else {"gauc": auc, "gauc_coverage": coverage}

    def reliability(self, bins: int = _CALIBRATION_BINS, *, split: str = "") -> Reliability:
        """Predicted and observed rates in at most ``bins`` bins of equal mass.

        Examples of equal logit share a bin, so the order of examples does not matter; each such
        group falls into the bin that contains the middle of its mass. Empty bins are left out.

        Raises:
          UserError: there are no examples, or a logit is not finite.
        """
        self._check(split)
        scores, group = np.unique(self.logits, return_inverse=True)
        mass = np.bincount(group, weights=self.weights, minlength=scores.size)
        middle = (np.cumsum(mass) - mass / 2) / np.sum(mass)
        # The middle of a group is in (0, 1); min() guards against rounding of the last one.
        bin_of_example = np.minimum((middle * bins).astype(np.int64), bins - 1)[group]

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(bin_of_example, weights=values, minlength=bins)

        count = total(self.weights)
        filled = count > 0
        count = count[filled]
        observed = total(self.weights * self.labels)[filled] / count
        effective_examples = count**2 / total(self.weights**2)[filled]
        return Reliability(
            prediction=total(self.weights * self.probabilities())[filled] / count,
            observed=observed,
            count=count,
            # Rounding can make a weighted rate slightly larger than 1.
            standard_error=np.sqrt(np.maximum(observed * (1 - observed), 0.0) / effective_examples),
        )

    def _check(self, split: str) -> None:
        """Raises UserError if there are no examples or a logit is not finite."""
        n = self.logits.size
        if n == 0:
            raise UserError(
                f"{_name(split)} has no examples to evaluate; check its source and filters"
            )
        bad = n - int(np.isfinite(self.logits).sum())
        if bad:
            raise UserError(
                f"{bad} of {n} logits of {_name(split)} are not finite; lower the learning rate or"
                " clip gradients"
            )


def oracle_coverage(model: Mapping[str, float], oracle: Mapping[str, float]) -> dict[str, float]:
    """The share of what can be learned that a model has learned, given the true probabilities.

    A model that knows only the base rate has 0; the oracle, which predicts the probabilities that
    the labels were drawn from, has 1: ``auc`` = (auc - 0.5) / (oracle auc - 0.5) and ``logloss`` =
    (H - logloss) / (H - oracle logloss), with H the entropy of the base rate in nats.

    Args:
      model: ``BinaryMetrics.compute`` of the model.
      oracle: ``BinaryMetrics.compute`` of the oracle, on the same examples.

    Raises:
      UserError: the oracle is no better than the base rate, or the metrics are of different
        examples.
    """
    if abs(model["positive_rate"] - oracle["positive_rate"]) > 1e-9:
        raise UserError(
            f"positive rates {model['positive_rate']:.6g} of the model and"
            f" {oracle['positive_rate']:.6g} of the oracle differ; evaluate both on the same"
            " examples"
        )
    entropy = _entropy(model["positive_rate"])
    if oracle["auc"] <= 0.5 or oracle["logloss"] >= entropy:
        raise UserError(
            f"the oracle (auc {oracle['auc']:.6g}, logloss {oracle['logloss']:.6g}) is no better"
            f" than the base rate (auc 0.5, logloss {entropy:.6g}); there is nothing to cover"
        )
    return {
        "auc": (model["auc"] - 0.5) / (oracle["auc"] - 0.5),
        "logloss": (entropy - model["logloss"]) / (entropy - oracle["logloss"]),
    }


def _entropy(rate: float) -> float:
    """-r ln r - (1 - r) ln(1 - r), nats, for 0 < r < 1."""
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))


def _name(split: str) -> str:
    return f"split {split!r}" if split else "the split"
