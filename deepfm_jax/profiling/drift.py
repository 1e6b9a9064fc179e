"""Drift: how far a column's distribution in valid and test differs from that in train."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The most frequent values have their own bins; all others share one.
TOP_BINS = 20


@dataclasses.dataclass(frozen=True)
class Drift:
    """The drift from the training rows to those of another split.

    Attributes:
      missing: Share of the split's rows without a value.
      unseen: Share of its rows with a value whose value does not occur in the training rows; for
        numbers, whose value is outside the training range. None for times.
      covered: Share of its rows with a value whose value has an id at the current options. None
        without a vocabulary.
      psi: See ``stability_index``.
      psi_by_chance: Expected PSI if nothing has changed, which is large for few rows.
    """

    missing: float
    unseen: float | None
    covered: float | None
    psi: float
    psi_by_chance: float


def stability_index(train: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The population stability index of two histograms, and its mean if nothing has changed.

    PSI = sum_b (q_b - p_b) ln(q_b / p_b), with shares p of the training rows and q of the others.
    As a rule of thumb, a PSI below 0.1 is stable and one above 0.25 has shifted. By chance alone it
    is about (bins - 1) (1 / n + 1 / m) for n and m rows. Half a row is added to each bin, so that
    an empty bin does not make it infinite.

    Args:
      train: Rows in each bin, [bins].
      other: Rows of the other split in the same bins, [bins].

    Source: Siddiqi 2006, "Credit Risk Scorecards"; Yurdakul and Naranjo 2020, "Statistical
      properties of the population stability index", Theorem 2.1, for its mean.
    """
    used = (train > 0) | (other > 0)
    train, other = train[used] + 0.5, other[used] + 0.5
    p, q = train / train.sum(), other / other.sum()
    by_chance = (len(p) - 1) * (1 / train.sum() + 1 / other.sum())
    return float(np.sum((q - p) * np.log(q / p))), float(by_chance)


def value_bins(train: pa.Table, counts: pa.Table) -> np.ndarray:
    """Counts rows in each bin: the most frequent training values, all other values, missing.

    Unseen values have no separate bin: it would be empty in train by definition, and every split of
    a column with rare values would seem to have shifted.

    Args:
      train: Counts of the training values.
      counts: Counts of the split.
    """
    known = train.filter(pc.is_valid(train["value"]))
    top = known.sort_by([("rows", "descending"), ("value", "ascending")])["value"]
    top = top.slice(0, TOP_BINS).combine_chunks()
    place = pc.coalesce(
        pc.index_in(counts["value"], value_set=top).cast(pa.int64()),
        pc.if_else(pc.is_null(counts["value"]), len(top) + 1, len(top)),
    )
    return _histogram(place.to_numpy(), counts, len(top) + 2)


def edge_bins(edges: Sequence[float], counts: pa.Table) -> np.ndarray:
    """Counts rows in each bin: #{edges <= x} for a number x, and one bin for missing cells."""
    missing = pc.is_null(counts["value"]).to_numpy()
    bins = np.searchsorted(np.asarray(edges), counts["value"].to_numpy(), side="right")
    return _histogram(np.where(missing, len(edges) + 1, bins), counts, len(edges) + 2)


def hour_bins(counts: pa.Table) -> np.ndarray:
    """Counts rows by hour of the day, with one bin for missing; values are hours since 1970."""
    missing = pc.is_null(counts["value"]).to_numpy()
    hours = pc.fill_null(counts["value"], 0).to_numpy() % 24
    return _histogram(np.where(missing, 24, hours), counts, 25)


def _histogram(bins: np.ndarray, counts: pa.Table, length: int) -> np.ndarray:
    return np.bincount(bins.astype(np.int64), weights=counts["rows"].to_numpy(), minlength=length)
