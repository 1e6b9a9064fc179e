"""How sure a difference between models is: a paired bootstrap over rows and seeds.

Two models are tested on the same rows, so most of the chance in either's AUC is shared and cancels
in the difference; and each was trained from several seeds, whose spread does not cancel. A resample
therefore draws the rows of the split with replacement, the same rows for every run of every model,
and, for each model by itself, its seeds with replacement. Its statistic is the mean of the metric
over the drawn seeds, on the drawn rows.

What it does not cover: one seed says nothing of the spread of seeds, and S seeds make it too narrow
by sqrt((S - 1) / S), as every bootstrap of so few does; nor does it know of other training rows.

Source: Efron and Tibshirani 1993, An introduction to the bootstrap, sec. 13.3 (percentile
  interval).
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Float64, Shaped
from tqdm import tqdm

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """A model's metric, a mean over seeds, with what chance could have made of it.

    Those of one ``bootstrap`` are paired: ``a - b`` is the difference of two models, resample by
    resample on the same rows.

    Attributes:
      estimate: On the rows as they are, over all seeds.
      draws: The same of each resample.
    """

    estimate: float
    draws: Float64[np.ndarray, "resamples"]

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.estimate - other.estimate, self.draws - other.draws)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The percentile interval: ``level`` of the resamples lie in it, as many on each side."""
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


class Ranking:
    """Rows sorted by logit once, for the AUC under any number of row counts in O(rows) each."""

    def __init__(self, logits: Float[np.ndarray, "rows"], labels: Shaped[np.ndarray, "rows"]):
        self._order = np.argsort(logits, kind="stable")
        self._labels = labels[self._order].astype(np.int64)
        # Rows are told apart at the edges of groups of equal logits only: ties count half.
        steps = np.flatnonzero(np.diff(logits[self._order])) + 1
        self._edges = np.concatenate([[0], steps, [logits.size]])

    def auc(self, counts: Shaped[np.ndarray, "rows"]) -> float:
        """P(positive scores above negative) where row i is there ``counts[i]`` times.

        The area under positives against negatives, both counted from the lowest logit up, by
        trapezoids between groups of equal logits. Exact: every sum is of integers and halves, but
        where rows have weights, which multiply the counts.
        """
        drawn = counts[self._order]
        positives = self._up_to_edges(drawn * self._labels)
        negatives = self._up_to_edges(drawn) - positives
        return float(np.trapezoid(negatives, positives) / (positives[-1] * negatives[-1]))

    def _up_to_edges(self, values: np.ndarray) -> Float64[np.ndarray, "edges"]:
        sums = np.zeros(values.size + 1)
        np.cumsum(values, out=sums[1:])
        return sums[self._edges]


def bootstrap(
    logits: Mapping[str, Float[np.ndarray, "_ rows"]],
    labels: Shaped[np.ndarray, "rows"],
    *,
    weights: Float[np.ndarray, "rows"] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Resampled]]:
    """AUC and logloss of each model, resampled: ``bootstrap(...)["auc"]["fm"]``.

    Time is O(resamples x runs x rows). Memory is that of one model's rows: the rows of a resample
    are drawn anew for each model, from the same seed. So a model's draws do not depend on the
    models that follow it.

    Args:
      logits: By model, a row of the array for each of its seeds.
      labels: 0 or 1.
      weights: Above 0; None where all rows count alike.
      resamples: Number of draws.
      seed: Of the draws.

    Raises:
      UserError: logits and labels that do not fit or are not finite, or labels of one class.
    """
    _check(logits, labels)
    found: dict[str, dict[str, Resampled]] = {"auc": {}, "logloss": {}}
    with tqdm(
        desc="bootstrap",
        total=resamples * len(logits),
        unit=" resamples",
        mininterval=0.5,
        leave=False,
    ) as bar:
        for index, (model, scores) in enumerate(logits.items()):
            rankings = [Ranking(row, labels) for row in scores]
            losses = _losses(scores.astype(np.float64), labels)

            def metrics(counts, rankings=rankings, losses=losses) -> np.ndarray:
                counts = counts if weights is None else counts * weights
                aucs = [ranking.auc(counts) for ranking in rankings]
                return np.stack([aucs, losses @ counts / counts.sum()])

            # Stream 0 draws rows, and each model has a stream for its seeds.
            rng = np.random.default_rng((seed, 1 + index))
            draws = np.empty((2, resamples))
            for number, counts in enumerate(_row_counts(labels, resamples, seed)):
                seeds = rng.integers(len(scores), size=len(scores))
                draws[:, number] = metrics(counts)[:, seeds].mean(axis=1)
                bar.update()
            as_they_are = metrics(np.ones(labels.size, np.int64)).mean(axis=1)
            for name, estimate, values in zip(("auc", "logloss"), as_they_are, draws, strict=True):
                found[name][model] = Resampled(float(estimate), values)
    return found


def _row_counts(labels: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, of each resample."""
    rng = np.random.default_rng((seed, 0))
    rows = labels.size
    for _ in range(resamples):
        counts = np.zeros(rows, np.int64)
        # A draw of one class has no AUC; it hardly comes unless a class has a handful of rows.
        while not 0 < counts @ labels < rows:
            counts = np.bincount(rng.integers(rows, size=rows), minlength=rows)
        yield counts


def _losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nats of each row: max(z, 0) - z y + log(1 + exp(-|z|)), as in ``metrics``."""
    return np.maximum(z, 0.0) - z * y[None] + np.log1p(np.exp(-np.abs(z)))


def _check(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    for model, scores in logits.items():
        if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1:] != labels.shape:
            raise UserError(
                f"logits {scores.shape} of {model!r} must be [seeds, rows] of labels {labels.shape}"
            )
        if not np.isfinite(scores).all():
            raise UserError(f"logits of {model!r} are not all finite")
    if not np.array_equal(np.unique(labels), [0, 1]):
        raise UserError(f"labels are {np.unique(labels)[:3]}; AUC needs both 0 and 1, and no other")
