"""The base class of coders, each of which turns the values of one field into ids."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@runtime_checkable
class CodedField(Protocol):
    """What ``FieldCoder`` needs from its field; subclasses need further options."""

    @property
    def name(self) -> str:
        """Name of the field."""
        ...

    @property
    def value_type(self) -> pa.DataType:
        """Type of the values in its vocabulary."""
        ...


@dataclasses.dataclass(frozen=True)
class FieldCoder:
    """The fitted coding of one field.

    A subclass defines the ids of values (``value_ids``), their number (``dim``) and how to fit the
    coder to the counts of the training values (``fit``). The base class serves fields that have no
    ids: dense fields, and fields that share the ids of another.

    Attributes:
      field: The declared field.
      vocabulary: Values (or buckets) that have an id, in the order of their ids.
      counts: Number of training rows with each of these values.
      edges: Inner quantile edges, ascending; x falls in bucket #{edges <= x}.
      mean: Mean of the training values; used by ``standardise``.
      std: Standard deviation, likewise; 1 for a constant column, whose values all become 0.
    """

    field: CodedField
    vocabulary: pa.Array
    counts: pa.Array
    edges: tuple[float, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    # Whether ids or statistics are fitted to counts of the training values.
    IS_FITTED: ClassVar[bool] = False
    # Whether ids are assigned to training values or to buckets of them.
    HAS_VOCABULARY: ClassVar[bool] = False

    @property
    def min_count(self) -> int:
        """Number of training rows that a value needs to get an id."""
        return 1

    @property
    def max_size(self) -> int | None:
        """Largest number of values that get an id; None for no limit."""
        return None

    @property
    def first_id(self) -> int:
        """Id of the first value: 1, or 2 if missing values have id 1.

        A column that holds its own ids starts at 0.
        """
        return 1

    @property
    def missing_id(self) -> int:
        """Id of a missing cell."""
        return max(self.first_id - 1, 0)

    @property
    def dim(self) -> int:
        """Number of ids of the field, including id 0."""
        return self.first_id + len(self.vocabulary)

    def encode(self, column: pa.ChunkedArray, ids: np.ndarray, values: np.ndarray | None) -> None:
        """Writes the ids and, for a value field, the values of a column with one value per row.

        Args:
          column: Typed cells, [rows]; null where missing.
          ids: Overwritten, [rows].
          values: All 1 on entry, [rows]; overwritten by value fields.

        Raises:
          UserError: an id is out of range; ``readers.sources`` rejects such rows.
        """
        cells = column.combine_chunks()
        if pa.types.is_dictionary(cells.type):
            self._encode_distinct(cells, ids, values)
        else:
            self.encode_each(cells, ids, values)

    def encode_each(self, cells: pa.Array, ids: np.ndarray, values: np.ndarray | None) -> None:
        """Does what ``encode`` does, for cells that are not dictionary-encoded."""
        del values
        ids[:] = self.value_ids(cells)
        ids[pc.is_null(cells).to_numpy(zero_copy_only=False)] = self.missing_id

    def _encode_distinct(
        self, cells: pa.DictionaryArray, ids: np.ndarray, values: np.ndarray | None
    ) -> None:
        """Does what ``encode`` does, but looks up each distinct cell only once."""
        # The last distinct cell is the missing one.
        distinct = pa.concat_arrays([cells.dictionary, pa.nulls(1, cells.dictionary.type)])
        ids_of = np.empty(len(distinct), ids.dtype)
        values_of = None if values is None else np.ones(len(distinct), values.dtype)
        self.encode_each(distinct, ids_of, values_of)
        places = cells.indices.fill_null(len(cells.dictionary)).to_numpy()
        ids[:] = ids_of.take(places)
        if values is not None and values_of is not None:
            values[:] = values_of.take(places)

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        """Returns the ids of typed values, [values]; the ids of nulls are undefined.

        Raises:
          UserError: an id is out of range; ``readers.sources`` rejects such rows.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no ids")

    def statistics(self) -> dict[str, Any]:
        """Returns the fitted statistics for JSON; the vocabulary is in ``saved_rows``."""
        return {"edges": list(self.edges), "mean": self.mean, "std": self.std}

    def saved_rows(self) -> tuple[pa.Array, pa.Array]:
        """Returns the vocabulary as text, and the counts."""
        return self.vocabulary.cast(pa.string()), self.counts

    @classmethod
    def fit(cls, field: CodedField, counts: pa.Table) -> "FieldCoder":
        """Fits a coder to the counts of a field's training values, without missing ones.

        Args:
          field: The declared field.
          counts: Columns ``value`` and ``count``; empty if nothing was counted.
        """
        del counts
        return cls(field, **_empty(field))

    @classmethod
    def from_saved(
        cls, field: CodedField, statistics: Mapping[str, Any], rows: pa.Table
    ) -> "FieldCoder":
        """Restores a coder from the output of ``statistics`` and ``saved_rows``."""
        rows = rows.sort_by("id").combine_chunks()
        return cls(
            field=field,
            vocabulary=rows["value"].combine_chunks().cast(field.value_type),
            counts=rows["count"].combine_chunks(),
            edges=tuple(statistics["edges"]),
            mean=statistics["mean"],
            std=statistics["std"],
        )

    @classmethod
    def kept_counts(cls, field: CodedField, counts: pa.Table) -> pa.Table:
        """Drops the values that ``fit`` would drop.

        Args:
          field: The declared field.
          counts: Complete counts of some values: columns ``value`` and ``count``.
        """
        del field
        return counts

    @classmethod
    def coded_counts(cls, counts: pa.Table) -> pa.Table:
        """Groups counts by what gets an id: by bucket or, by default, by value.

        Args:
          counts: Columns ``value``, without missing ones, and ``rows``.
        """
        return counts


def _empty(field: CodedField) -> dict[str, pa.Array]:
    return {"vocabulary": pa.array([], field.value_type), "counts": pa.array([], pa.int64())}


def fit_field(coder: type[FieldCoder], field: CodedField, counts: pa.Table) -> FieldCoder:
    """Fits a coder to the counts of a field's training values (null: missing)."""
    return coder.fit(field, counts.filter(pc.is_valid(counts["value"])))
