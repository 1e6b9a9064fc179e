"""Ids from a vocabulary of the training values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import functools
from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.coder import CodedField, FieldCoder
from deepfm_jax.coders.value_index import ValueIndex


@runtime_checkable
class VocabularyField(CodedField, Protocol):
    """A field with a vocabulary, with options as in ``columns.Categorical``."""

    @property
    def min_count(self) -> int:
        """Number of training rows that a value needs to get an id."""
        ...

    @property
    def max_size(self) -> int | None:
        """Largest number of values that get an id."""
        ...

    @property
    def separate_missing(self) -> bool:
        """Whether missing cells have id 1."""
        ...


@dataclasses.dataclass(frozen=True)
class VocabularyCoder(FieldCoder):
    """Assigns ids by frequency in the training rows; unseen and rare values share id 0."""

    field: VocabularyField

    IS_FITTED: ClassVar[bool] = True
    HAS_VOCABULARY: ClassVar[bool] = True

    @property
    def min_count(self) -> int:
        return self.field.min_count

    @property
    def max_size(self) -> int | None:
        return self.field.max_size

    @property
    def first_id(self) -> int:
        return 1 + int(self.field.separate_missing)

    @functools.cached_property
    def _index(self) -> ValueIndex:
        return ValueIndex(self.vocabulary)

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        places = self._index.places(cells)
        return np.where(places < 0, 0, places + self.first_id)

    @classmethod
    def fit(cls, field: VocabularyField, counts: pa.Table) -> FieldCoder:
        kept = counts.filter(pc.greater_equal(counts["count"], field.min_count))
        # Ties are broken by value, so that ids do not depend on the order of rows.
        kept = kept.sort_by([("count", "descending"), ("value", "ascending")]).combine_chunks()
        if field.max_size is not None:
            kept = kept.slice(0, field.max_size)
        return cls(
            field=field,
            vocabulary=kept["value"].combine_chunks(),
            counts=kept["count"].combine_chunks(),
        )

    @classmethod
    def kept_counts(cls, field: VocabularyField, counts: pa.Table) -> pa.Table:
        coder = cls.fit(field, counts.filter(pc.is_valid(counts["value"])))
        return pa.table({"value": coder.vocabulary, "count": coder.counts})


def merge_counts(parts: Sequence[pa.Table]) -> pa.Table:
    """Adds up the counts of equal values; columns ``value`` and ``count``."""
    joined = pa.concat_tables(parts)
    # Nulls are counted too. Counts are below 2^53, so their sums in float64 are exact.
    coded = joined["value"].combine_chunks().dictionary_encode(null_encoding="encode")
    counts = np.bincount(coded.indices, joined["count"], minlength=len(coded.dictionary))
    return pa.table({"value": coded.dictionary, "count": counts.astype(np.int64)})
