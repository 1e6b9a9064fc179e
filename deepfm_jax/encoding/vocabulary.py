"""How one field turns values into ids: fitted from counts of its training values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.encoding.hashing import hash_integers, hash_text
from deepfm_jax.encoding.value_index import ValueIndex
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Field, Numeric


@dataclasses.dataclass(frozen=True)
class FieldCoder:
    """The fitted coding of one field.

    Attributes:
      field: Its declaration.
      vocabulary: Values (or log2_floor buckets) that have an id, in the order of their ids.
      counts: Training rows of each of them.
      edges: Inner quantile edges, ascending; x falls in bucket #{edges <= x}.
      mean: Of the training values; used by ``standardise``.
      std: Likewise; 1 for a constant column, whose values all become 0.
    """

    field: Field
    vocabulary: pa.Array
    counts: pa.Array
    edges: tuple[float, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @property
    def first_id(self) -> int:
        """Id of the first value: 1, or 2 where missing values have id 1 for themselves.

        Ids as they are in the column start with 0.
        """
        if not self.has_rare_values:
            return 0 if self.is_id else 1
        return 1 + int(self.field.separate_missing)

    @property
    def has_rare_values(self) -> bool:
        """Whether id 0 may be a value that is unseen or rare, and not only a missing one."""
        if isinstance(self.field, Numeric):
            return not self.field.is_value_field
        return self.field.has_vocabulary

    @property
    def is_id(self) -> bool:
        """Whether the column holds the ids themselves."""
        return not isinstance(self.field, Numeric) and self.field.dtype == "id"

    @property
    def is_value_field(self) -> bool:
        """Whether the number itself is the feature's value, under one id."""
        return isinstance(self.field, Numeric) and self.field.is_value_field

    @property
    def is_quantile(self) -> bool:
        """Whether ids are quantile buckets."""
        return isinstance(self.field, Numeric) and self.field.transform == "quantile"

    @property
    def dim(self) -> int:
        """Ids of the field, id 0 included."""
        if self.is_value_field:
            return 2
        if not isinstance(self.field, Numeric) and self.field.size is not None:
            return self.field.size
        if not isinstance(self.field, Numeric) and self.field.hash_buckets is not None:
            return self.field.hash_buckets + 1
        return self.first_id + (len(self.edges) + 1 if self.is_quantile else len(self.vocabulary))

    @property
    def missing_id(self) -> int:
        """Id of a missing cell."""
        return max(self.first_id - 1, 0)

    def encode(self, column: pa.ChunkedArray, ids: np.ndarray, values: np.ndarray | None) -> None:
        """Writes the ids and, for a value field, the values of a typed column of one value a row.

        Raises:
          UserError: an id that the column cannot have; ``readers.sources`` rejects rows with one.
        """
        if pa.types.is_dictionary(column.type):
            self._encode_distinct(column.combine_chunks(), ids, values)
            return
        missing = pc.is_null(column).to_numpy()
        if not isinstance(self.field, Numeric):
            ids[:] = self.category_ids(column.combine_chunks())
        else:
            numbers = column.to_numpy()
            if self.is_value_field:
                ids[:] = 1
                assert values is not None  # The schema has a value field: this one.
                values[:] = np.where(missing, 1.0, self._transformed(numbers))
            elif self.is_quantile:
                ids[:] = np.searchsorted(self.edges, numbers, side="right") + self.first_id
            else:
                buckets = log2_floor(np.where(missing, 0.0, numbers))
                ids[:] = self._lookup(pa.array(buckets))
        ids[missing] = self.missing_id

    def _encode_distinct(
        self, cells: pa.DictionaryArray, ids: np.ndarray, values: np.ndarray | None
    ) -> None:
        """``encode`` by a look at each distinct cell and not at each row."""
        # A missing cell is one of them, the last.
        distinct = pa.chunked_array([cells.dictionary, pa.nulls(1, cells.dictionary.type)])
        ids_of = np.empty(len(distinct), ids.dtype)
        values_of = None if values is None else np.ones(len(distinct), values.dtype)
        self.encode(distinct, ids_of, values_of)
        places = cells.indices.fill_null(len(cells.dictionary)).to_numpy()
        ids[:] = ids_of.take(places)
        if values is not None and values_of is not None:
            values[:] = values_of.take(places)

    def category_ids(self, cells: pa.Array) -> np.ndarray:
        """Ids of the values of a column of categories; those of nulls mean nothing.

        Raises:
          UserError: an id that the column cannot have; ``readers.sources`` rejects rows with one.
        """
        field = self.field
        assert not isinstance(field, Numeric)
        if field.has_vocabulary:
            return self._lookup(cells)
        if field.hash_buckets is None:
            assert field.size is not None  # It goes with ids.
            ids = cells.fill_null(0).to_numpy()
            if len(ids) and not 0 <= ids.min() <= ids.max() < field.size:
                raise UserError(
                    f"column {field.name}: ids from {ids.min()} to {ids.max()} are not all from 0 "
                    f"to {field.size - 1}"
                )
            return ids
        if field.dtype == "string":
            hashed = hash_text(cells.cast(pa.string()))
        else:
            hashed = hash_integers(cells.fill_null(0).to_numpy())
        return (hashed % field.hash_buckets).astype(np.int32) + 1

    @functools.cached_property
    def _index(self) -> ValueIndex:
        return ValueIndex(self.vocabulary)

    def _lookup(self, column: pa.Array) -> np.ndarray:
        places = self._index.places(column)
        return np.where(places < 0, 0, places + self.first_id)

    def _transformed(self, numbers: np.ndarray) -> np.ndarray:
        if self.field.transform == "log":  # pyright: ignore[reportAttributeAccessIssue]
            return np.sign(numbers) * np.log1p(np.abs(numbers))
        return (numbers - self.mean) / self.std

    def statistics(self) -> dict[str, Any]:
        """What JSON keeps; the vocabulary is in ``saved_rows``."""
        return {"edges": list(self.edges), "mean": self.mean, "std": self.std}

    def saved_rows(self) -> tuple[pa.Array, pa.Array]:
        """The vocabulary as text, and the counts."""
        return self.vocabulary.cast(pa.string()), self.counts

    @classmethod
    def from_saved(
        cls, field: Field, statistics: Mapping[str, Any], rows: pa.Table
    ) -> "FieldCoder":
        """A coder from what ``statistics`` and ``saved_rows`` gave."""
        rows = rows.sort_by("id").combine_chunks()
        kind = _value_type(field)
        return cls(
            field=field,
            vocabulary=rows["value"].combine_chunks().cast(kind),
            counts=rows["count"].combine_chunks(),
            edges=tuple(statistics["edges"]),
            mean=statistics["mean"],
            std=statistics["std"],
        )


def log2_floor(numbers: np.ndarray) -> np.ndarray:
    """floor(ln(x)^2) for x > 2, else floor(x), as int64.

    The two ranges meet (2 and 3 -> floor(ln(5)^2) = 2), as in the original.

    Source: the winning solution of the Criteo challenge (Juan et al. 2014), which all published
      Criteo recipes follow.
    """
    large = numbers > 2
    logs = np.log(np.where(large, numbers, 1.0)) ** 2
    return np.floor(np.where(large, logs, numbers)).astype(np.int64)


def merge_counts(parts: Sequence[pa.Table]) -> pa.Table:
    """Counts of the same values added up; columns ``value`` and ``count``."""
    joined = pa.concat_tables(parts)
    # A null is a value here. Counts are below 2^53, and so their sums in float64 are exact.
    coded = joined["value"].combine_chunks().dictionary_encode(null_encoding="encode")
    counts = np.bincount(coded.indices, joined["count"], minlength=len(coded.dictionary))
    return pa.table({"value": coded.dictionary, "count": counts.astype(np.int64)})


def fit_field(field: Field, counts: pa.Table) -> FieldCoder:
    """The coding of a field from counts of its training values (null: missing)."""
    counts = counts.filter(pc.is_valid(counts["value"]))
    if not isinstance(field, Numeric) and not field.has_vocabulary:
        return FieldCoder(field, pa.array([], _value_type(field)), pa.array([], pa.int64()))
    if isinstance(field, Numeric):
        numbers = counts["value"].to_numpy()
        weights = counts["count"].to_numpy()
        if field.transform == "log2_floor":
            buckets = pa.table({"value": log2_floor(numbers), "count": weights})
            return _fit_vocabulary(field, merge_counts([buckets]))
        return _fit_numbers(field, numbers, weights)
    return _fit_vocabulary(field, counts)


def _fit_vocabulary(field: Field, counts: pa.Table) -> FieldCoder:
    kept = counts.filter(pc.greater_equal(counts["count"], field.min_count))
    # Ties by value, so that ids do not depend on the order of rows.
    kept = kept.sort_by([("count", "descending"), ("value", "ascending")]).combine_chunks()
    if not isinstance(field, Numeric) and field.max_size is not None:
        kept = kept.slice(0, field.max_size)
    return FieldCoder(
        field=field,
        vocabulary=kept["value"].combine_chunks(),
        counts=kept["count"].combine_chunks(),
    )


def _fit_numbers(field: Numeric, numbers: np.ndarray, weights: np.ndarray) -> FieldCoder:
    empty = {
        "vocabulary": pa.array([], _value_type(field)),
        "counts": pa.array([], pa.int64()),
    }
    if not len(numbers):
        return FieldCoder(field=field, **empty)
    # By the count where numbers are equal, as 0 and -0 are: sums must not depend on rows' order.
    order = np.lexsort((weights, numbers))
    numbers, weights = numbers[order], weights[order]
    total = int(weights.sum())
    mean = float(np.dot(numbers, weights) / total)
    std = math.sqrt(float(np.dot((numbers - mean) ** 2, weights) / total)) or 1.0
    edges: tuple[float, ...] = ()
    if field.transform == "quantile":
        ranks = np.arange(1, field.buckets) * total / field.buckets
        cuts = np.unique(numbers[np.searchsorted(np.cumsum(weights), ranks, side="right")])
        # The smallest value as an edge would leave the first bucket empty.
        edges = tuple(float(cut) for cut in cuts if cut > numbers[0])
    return FieldCoder(field=field, edges=edges, mean=mean, std=std, **empty)


def _value_type(field: Field) -> pa.DataType:
    if not isinstance(field, Numeric) and field.dtype == "string":
        return pa.string()
    return pa.int64()
