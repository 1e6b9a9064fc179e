"""How one field turns values into ids: the base class of all coders."""

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
    """What ``FieldCoder`` needs of its field; subclasses need further options."""

    @property
    def name(self) -> str:
        """Of the field."""
        ...

    @property
    def value_type(self) -> pa.DataType:
        """Of the values in its vocabulary."""
        ...


@dataclasses.dataclass(frozen=True)
class FieldCoder:
    """The fitted coding of one field.

    A subclass defines the ids of values (``value_ids``), their number (``dim``) and what is fitted
    to the counts of the training values (``fit``). The base class serves fields without ids of
    their own: dense fields, and those that share the ids of another.

    Attributes:
      field: Its declaration.
      vocabulary: Values (or buckets of them) that have an id, in the order of their ids.
      counts: Training rows of each of them.
      edges: Inner quantile edges, ascending; x falls in bucket #{edges <= x}.
      mean: Of the training values; used by ``standardise``.
      std: Likewise; 1 for a constant column, whose values all become 0.
    """

    field: CodedField
    vocabulary: pa.Array
    counts: pa.Array
    edges: tuple[float, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    # Whether ids or statistics are fitted to counts of the training values.
    IS_FITTED: ClassVar[bool] = False
    # Whether training values, or buckets of them, get ids of their own.
    HAS_VOCABULARY: ClassVar[bool] = False

    @property
    def min_count(self) -> int:
        """Training rows that a value needs to get an id."""
        return 1

    @property
    def max_size(self) -> int | None:
        """Most values that get an id; None for all."""
        return None

    @property
    def first_id(self) -> int:
        """Id of the first value: 1, or 2 where missing values have id 1 for themselves.

        Ids as they are in the column start with 0.
        """
        return 1

    @property
    def missing_id(self) -> int:
        """Id of a missing cell."""
        return max(self.first_id - 1, 0)

    @property
    def dim(self) -> int:
        """Ids of the field, id 0 included."""
        return self.first_id + len(self.vocabulary)

    def encode(self, column: pa.ChunkedArray, ids: np.ndarray, values: np.ndarray | None) -> None:
        """Writes the ids and, for a value field, the values of a typed column of one value a row.

        Args:
          column: Typed cells, [rows]; null where missing.
          ids: Written, [rows].
          values: 1 for every row, [rows]; written where the number itself is the value.

        Raises:
          UserError: an id that the column cannot have; ``readers.sources`` rejects rows with one.
        """
        cells = column.combine_chunks()
        if pa.types.is_dictionary(cells.type):
            self._encode_distinct(cells, ids, values)
        else:
            self.encode_each(cells, ids, values)

    def encode_each(self, cells: pa.Array, ids: np.ndarray, values: np.ndarray | None) -> None:
        """As ``encode``, of cells that are not dictionary-encoded."""
        del values
        ids[:] = self.value_ids(cells)
        ids[pc.is_null(cells).to_numpy(zero_copy_only=False)] = self.missing_id

    def _encode_distinct(
        self, cells: pa.DictionaryArray, ids: np.ndarray, values: np.ndarray | None
    ) -> None:
        """``encode`` by a look at each distinct cell and not at each row."""
        # A missing cell is one of them, the last.
        distinct = pa.concat_arrays([cells.dictionary, pa.nulls(1, cells.dictionary.type)])
        ids_of = np.empty(len(distinct), ids.dtype)
        values_of = None if values is None else np.ones(len(distinct), values.dtype)
        self.encode_each(distinct, ids_of, values_of)
        places = cells.indices.fill_null(len(cells.dictionary)).to_numpy()
        ids[:] = ids_of.take(places)
        if values is not None and values_of is not None:
            values[:] = values_of.take(places)

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        """Ids of typed values, [values]; those of nulls mean nothing.

        Raises:
          UserError: an id that the column cannot have; ``readers.sources`` rejects rows with one.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no ids")

    def statistics(self) -> dict[str, Any]:
        """What JSON keeps; the vocabulary is in ``saved_rows``."""
        return {"edges": list(self.edges), "mean": self.mean, "std": self.std}

    def saved_rows(self) -> tuple[pa.Array, pa.Array]:
        """The vocabulary as text, and the counts."""
        return self.vocabulary.cast(pa.string()), self.counts

    @classmethod
    def fit(cls, field: CodedField, counts: pa.Table) -> "FieldCoder":
        """The coding of a field from counts of its training values, none of them missing.

        Args:
          field: What is declared of it.
          counts: Columns ``value`` and ``count``; without rows where nothing was counted.
        """
        del counts
        return cls(field, **_nothing(field))

    @classmethod
    def from_saved(
        cls, field: CodedField, statistics: Mapping[str, Any], rows: pa.Table
    ) -> "FieldCoder":
        """A coder from what ``statistics`` and ``saved_rows`` gave."""
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
        """The complete counts of some values, without those that ``fit`` would drop.

        Args:
          field: What is declared of it.
          counts: Columns ``value`` and ``count``.
        """
        del field
        return counts

    @classmethod
    def coded_counts(cls, counts: pa.Table) -> pa.Table:
        """Counts by what ids are given to: by value as they are, or by bucket.

        Args:
          counts: Columns ``value``, none of them missing, and ``rows``.
        """
        return counts


def _nothing(field: CodedField) -> dict[str, pa.Array]:
    return {"vocabulary": pa.array([], field.value_type), "counts": pa.array([], pa.int64())}


def fit_field(coder: type[FieldCoder], field: CodedField, counts: pa.Table) -> FieldCoder:
    """The coding of a field from counts of its training values (null: missing)."""
    return coder.fit(field, counts.filter(pc.is_valid(counts["value"])))
