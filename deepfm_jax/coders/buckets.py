"""Ids for buckets of numbers: by the Criteo winners' transform, or by training quantiles."""

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from deepfm_jax.coders.coder import CodedField, FieldCoder
from deepfm_jax.coders.numbers import NumberCoder
from deepfm_jax.coders.vocabulary import VocabularyCoder, VocabularyField, merge_counts


@dataclasses.dataclass(frozen=True)
class Log2FloorCoder(VocabularyCoder):
    """A vocabulary of the ``log2_floor`` buckets of numbers."""

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        return super().value_ids(pa.array(log2_floor(cells.fill_null(0.0).to_numpy())))

    @classmethod
    def fit(cls, field: VocabularyField, counts: pa.Table) -> FieldCoder:
        buckets = log2_floor(counts["value"].to_numpy())
        merged = merge_counts([pa.table({"value": buckets, "count": counts["count"].to_numpy()})])
        return super().fit(field, merged)

    @classmethod
    def kept_counts(cls, field: VocabularyField, counts: pa.Table) -> pa.Table:
        # A rare number may fall into a frequent bucket.
        del field
        return counts

    @classmethod
    def coded_counts(cls, counts: pa.Table) -> pa.Table:
        buckets = log2_floor(counts["value"].to_numpy())
        merged = pa.table({"value": buckets, "rows": counts["rows"]}).group_by("value")
        return merged.aggregate([("rows", "sum")]).rename_columns({"rows_sum": "rows"})


@runtime_checkable
class QuantileField(CodedField, Protocol):
    """A field of quantile buckets, with options as in ``columns.Numeric``."""

    @property
    def buckets(self) -> int:
        """Number of buckets."""
        ...

    @property
    def separate_missing(self) -> bool:
        """Whether missing cells have id 1."""
        ...


@dataclasses.dataclass(frozen=True)
class QuantileCoder(NumberCoder):
    """The id of a number is the training quantile that it falls in."""

    field: QuantileField

    IS_FITTED: ClassVar[bool] = True

    @property
    def first_id(self) -> int:
        return 1 + int(self.field.separate_missing)

    @property
    def dim(self) -> int:
        return self.first_id + len(self.edges) + 1

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        numbers = cells.to_numpy(zero_copy_only=False)
        return np.searchsorted(self.edges, numbers, side="right") + self.first_id

    @classmethod
    def edges_of(
        cls, field: QuantileField, numbers: np.ndarray, weights: np.ndarray
    ) -> tuple[float, ...]:
        total = int(weights.sum())
        ranks = np.arange(1, field.buckets) * total / field.buckets
        cuts = np.unique(numbers[np.searchsorted(np.cumsum(weights), ranks, side="right")])
        # An edge at the smallest value would leave the first bucket empty.
        return tuple(float(cut) for cut in cuts if cut > numbers[0])


def log2_floor(numbers: np.ndarray) -> np.ndarray:
    """floor(ln(x)^2) for x > 2, else floor(x), as int64.

    The two ranges meet (2 and 3 -> floor(ln(5)^2) = 2), as in the original.

    Source: the winning solution of the Criteo challenge (Juan et al. 2014), which all published
      Criteo recipes follow.
    """
    large = numbers > 2
    logs = np.log(np.where(large, numbers, 1.0)) ** 2
    return np.floor(np.where(large, logs, numbers)).astype(np.int64)
