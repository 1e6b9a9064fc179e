"""How sure a difference between models is: a paired bootstrap over rows and seeds.

Two models are tested on the same rows, so most of the chance in either's AUC is shared and cancels
in the difference; and each was trained from several seeds, whose spread does not cancel. A resample
is a sum of the two. The rows of the split are drawn with replacement, the same rows for every run
of every model, and give the mean of the metric over all seeds; to that comes, for each model by
itself, how far the mean of S seeds drawn with replacement is from the mean of all S, on the rows as
they are. (Drawn together, seeds would also bring along what the drawn rows make of each, which the
mean over all of them has already.)

S seeds are few. Drawn means of them have a variance too small by (S - 1) / S, and a normal
distribution's quantiles do not know that the variance is itself an estimate. So the seeds' part is
multiplied by sqrt(S / (S - 1)) and by t / z, the ratio of the quantiles of Student's t distribution
and of the normal one. The degrees of freedom are S - 1 for one model; for the difference of two
they are Welch's, between S - 1, where one of them has all the chance, and 2 (S - 1), where both
have the same. Without this, of equal models that differ by their seeds alone a fifth would be told
apart with three seeds, and a third with two.

What it does not cover: one seed says nothing of the spread of seeds; nor does it know of other
training rows.

Source: Efron and Tibshirani 1993, An introduction to the bootstrap, sec. 13.3 (percentile
  interval); Hesterberg 2015, What teachers should know about the bootstrap (arXiv 1411.5279), for
  both factors ("narrowness bias", and the expanded percentile interval, which moves the quantiles
  where here, since so few seeds have no such quantiles, the draws are moved); Welch 1947,
  Biometrika 34 (degrees of freedom).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.special import ndtri, stdtrit
from tqdm import tqdm

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """A model's metric, a mean over seeds, with what chance could have made of it.

    Those of one ``bootstrap`` are paired: ``a - b`` is the difference of two models, resample by
    resample on the same rows.

    Attributes:
      estimate: On the rows as they are, over all seeds.
      by_rows: The same on the rows of each resample.
      by_seeds: What drawn seeds add to it, of each resample: without bias in their variance, not
        yet widened for being few. All 0 with one seed.
      seed_variances: Of each model in it that has several seeds, the estimated variance of its mean
        over seeds, and the degrees of freedom of the estimate.
    """

    estimate: float
    by_rows: Float64[np.ndarray, "resamples"]
    by_seeds: Float64[np.ndarray, "resamples"]
    seed_variances: tuple[tuple[float, int], ...] = ()

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(
            self.estimate - other.estimate,
            self.by_rows - other.by_rows,
            self.by_seeds - other.by_seeds,
            self.seed_variances + other.seed_variances,
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The percentile interval: ``level`` of the resamples lie in it, as many on each side."""
        draws = self.by_rows + self._widening(level) * self.by_seeds
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _widening(self, level: float) -> float:
        """The ratio t / z at the end of the interval, with Welch's degrees of freedom.

        nu = (sum_m v_m)^2 / sum_m (v_m^2 / nu_m), v_m the variance of model m's mean over seeds.
        """
        total = sum(variance for variance, _ in self.seed_variances)
        if not total:
            return 1.0
        # As shares: the squares of tiny variances would be 0.
        shares = [(variance / total, freedom) for variance, freedom in self.seed_variances]
        freedom = 1 / sum(share**2 / of_model for share, of_model in shares)
        end = (1 + level) / 2
        return float(stdtrit(freedom, end) / ndtri(end))


def seed_draws(
    metrics: Float64[np.ndarray, "seeds"], resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "resamples"]:
    """How far the mean of as many drawn seeds is from the mean of all, without narrowness bias.

    The draws' variance is s^2 / S in expectation over them, s^2 with S - 1 in its denominator.

    Args:
      metrics: Of each seed's run, on the same rows.
      resamples: Number of draws.
      rng: Draws the seeds.
    """
    seeds = metrics.size
    if seeds == 1:
        return np.zeros(resamples)
    drawn = metrics[rng.integers(seeds, size=(resamples, seeds))].mean(axis=1)
    return math.sqrt(seeds / (seeds - 1)) * (drawn - metrics.mean())


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

            by_rows = np.empty((2, resamples))
            for number, counts in enumerate(_row_counts(labels, resamples, seed)):
                by_rows[:, number] = metrics(counts).mean(axis=1)
                bar.update()
            as_they_are = metrics(np.ones(labels.size, np.int64))
            # Stream 0 draws rows, and each model has a stream for its seeds.
            rng = np.random.default_rng((seed, 1 + index))
            for name, of_seeds, draws in zip(("auc", "logloss"), as_they_are, by_rows, strict=True):
                found[name][model] = _resampled(of_seeds, draws, rng)
    return found


def _resampled(of_seeds: np.ndarray, by_rows: np.ndarray, rng: np.random.Generator) -> Resampled:
    seeds = of_seeds.size
    variances = ((float(of_seeds.var(ddof=1)) / seeds, seeds - 1),) if seeds > 1 else ()
    by_seeds = seed_draws(of_seeds, by_rows.size, rng)
    return Resampled(float(of_seeds.mean()), by_rows, by_seeds, variances)


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
