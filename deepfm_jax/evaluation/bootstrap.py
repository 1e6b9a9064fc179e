"""Paired bootstrap over examples and seeds: how certain the difference of two models is.

The models are tested on the same examples, so most of the chance in their metrics is shared and
cancels in the difference. Each model is trained from several seeds, whose spread does not cancel. A
resample is the sum of two parts. The first is the metric, averaged over all seeds, on examples of
the split drawn with replacement; every run of every model sees the same draw. The second is drawn
for each model separately: the mean over S seeds drawn with replacement minus the mean over all S,
both on the original examples. (Drawing seeds jointly with the examples would add the effect of the
drawn examples on each seed, which the mean over all seeds already contains.)

S is small. The mean of S drawn seeds has a variance too small by (S - 1) / S, and the quantiles of
a normal distribution ignore that the variance is itself an estimate. The seeds' part is therefore
multiplied by sqrt(S / (S - 1)) and by t / z, the ratio of the quantiles of Student's t distribution
and of the normal one. The degrees of freedom are S - 1 for one model and Welch's for the difference
of two: between S - 1, if one of them has all the variance, and 2 (S - 1), if both have the same.
Without this correction, a fifth of equal models that differ only by their seeds would be separated
with three seeds, and a third with two.

The interval does not cover the spread between seeds if there is only one, nor the choice of the
training examples.

Source: Efron and Tibshirani 1993, An introduction to the bootstrap, sec. 13.3 (percentile
  interval); Hesterberg 2015, What teachers should know about the bootstrap (arXiv 1411.5279), for
  both factors ("narrowness bias", and the expanded percentile interval, which moves the quantiles;
  the draws are scaled here instead, since so few seeds have no such quantiles); Welch 1947,
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
    """A model's metric, averaged over seeds, with its resamples.

    The results of one ``bootstrap`` are paired: ``a - b`` is the difference of two models, resample
    by resample on the same examples.

    Attributes:
      estimate: The metric on the original examples, averaged over all seeds.
      by_rows: The same on the examples of each resample.
      by_seeds: What the drawn seeds add to each resample: their variance is unbiased, but not yet
        widened for the small number of seeds. All 0 with one seed.
      seed_variances: For each model with several seeds, the estimated variance of its mean over
        seeds and the degrees of freedom of that estimate.
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
        """The central percentile interval, which contains a share ``level`` of the resamples."""
        draws = self.by_rows + self._widening(level) * self.by_seeds
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _widening(self, level: float) -> float:
        """The ratio t / z at the end of the interval, with Welch's degrees of freedom.

        nu = (sum_m v_m)^2 / sum_m (v_m^2 / nu_m), with v_m the variance of model m's mean over
        seeds.
        """
        total = sum(variance for variance, _ in self.seed_variances)
        if not total:
            return 1.0
        # Shares, because the squares of tiny variances would underflow to 0.
        shares = [(variance / total, freedom) for variance, freedom in self.seed_variances]
        freedom = 1 / sum(share**2 / of_model for share, of_model in shares)
        end = (1 + level) / 2
        return float(stdtrit(freedom, end) / ndtri(end))


def seed_draws(
    metrics: Float64[np.ndarray, "seeds"], resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "resamples"]:
    """Mean over S drawn seeds minus the mean over all S, without narrowness bias.

    The variance of the draws is s^2 / S in expectation, where s^2 has S - 1 in its denominator.

    Args:
      metrics: The metric of each seed's run, on the same examples.
      resamples: Number of draws.
      rng: Generator that draws the seeds.
    """
    seeds = metrics.size
    if seeds == 1:
        return np.zeros(resamples)
    drawn = metrics[rng.integers(seeds, size=(resamples, seeds))].mean(axis=1)
    return math.sqrt(seeds / (seeds - 1)) * (drawn - metrics.mean())


class Ranking:
    """Sorts examples by logit once, then computes the AUC of any example counts in O(examples)."""

    def __init__(
        self, logits: Float[np.ndarray, "examples"], labels: Shaped[np.ndarray, "examples"]
    ):
        self._order = np.argsort(logits, kind="stable")
        self._labels = labels[self._order].astype(np.int64)
        # Only the edges between groups of equal logits separate examples: ties count half.
        steps = np.flatnonzero(np.diff(logits[self._order])) + 1
        self._edges = np.concatenate([[0], steps, [logits.size]])

    def auc(self, counts: Shaped[np.ndarray, "examples"]) -> float:
        """P(positive scores above negative) if example i occurs ``counts[i]`` times.

        The area under positives against negatives, both counted from the lowest logit up, by
        trapezoids between groups of equal logits. It is exact, since every sum is of integers and
        halves, unless the counts are multiplied by weights.
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
    logits: Mapping[str, Float[np.ndarray, "_ examples"]],
    labels: Shaped[np.ndarray, "examples"],
    *,
    weights: Float[np.ndarray, "examples"] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Resampled]]:
    """Resamples AUC and logloss of each model: ``bootstrap(...)["auc"]["fm"]``.

    Time is O(resamples x runs x examples). Memory is that of one model's examples: the examples of
    a resample are drawn again for each model, from the same seed. A model's draws therefore do not
    depend on the models that follow it.

    Args:
      logits: For each model, an array with one row per seed.
      labels: 0 or 1.
      weights: Above 0; None if all examples count equally.
      resamples: Number of draws.
      seed: Seed of the draws.

    Raises:
      UserError: logits and labels differ in shape, logits are not finite, or labels are not of both
        classes.
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
            for number, counts in enumerate(_example_counts(labels, resamples, seed)):
                by_rows[:, number] = metrics(counts).mean(axis=1)
                bar.update()
            original = metrics(np.ones(labels.size, np.int64))
            # Stream 0 draws examples; each model has its own stream for its seeds.
            rng = np.random.default_rng((seed, 1 + index))
            for name, of_seeds, draws in zip(("auc", "logloss"), original, by_rows, strict=True):
                found[name][model] = _resampled(of_seeds, draws, rng)
    return found


def _resampled(of_seeds: np.ndarray, by_rows: np.ndarray, rng: np.random.Generator) -> Resampled:
    seeds = of_seeds.size
    variances = ((float(of_seeds.var(ddof=1)) / seeds, seeds - 1),) if seeds > 1 else ()
    by_seeds = seed_draws(of_seeds, by_rows.size, rng)
    return Resampled(float(of_seeds.mean()), by_rows, by_seeds, variances)


def _example_counts(labels: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is drawn, for each resample."""
    rng = np.random.default_rng((seed, 0))
    rows = labels.size
    for _ in range(resamples):
        counts = np.zeros(rows, np.int64)
        # A draw of one class has no AUC; it is rare unless a class has only a handful of examples.
        while not 0 < counts @ labels < rows:
            counts = np.bincount(rng.integers(rows, size=rows), minlength=rows)
        yield counts


def _losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nats of each example: max(z, 0) - z y + log(1 + exp(-|z|)), as in ``metrics``."""
    return np.maximum(z, 0.0) - z * y[None] + np.log1p(np.exp(-np.abs(z)))


def _check(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    for model, scores in logits.items():
        if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1:] != labels.shape:
            raise UserError(
                f"logits {scores.shape} of {model!r} must be [seeds, examples] for labels "
                f"{labels.shape}"
            )
        if not np.isfinite(scores).all():
            raise UserError(f"logits of {model!r} are not all finite")
    if not np.array_equal(np.unique(labels), [0, 1]):
        raise UserError(
            f"labels are {np.unique(labels)[:3]}; AUC needs both 0 and 1, and no other labels"
        )
