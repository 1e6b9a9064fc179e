"""The base classes of columns: what cells are, and what becomes of them, for every kind.

A kind is a frozen dataclass in a file of its own, whose fields are its options. Code that reads,
counts, encodes or reports on columns asks the column, and never checks its kind.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.cells.typed import TypedCells, TypedValues, type_each
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.columns.encoding_options import EncodingOptions

# What training needs beside the inputs. A column that is a label is a ``Label``, or of a subclass.
Target: TypeAlias = Literal["label", "weight", "group"]
# What a column takes of a feature ``id:value`` of libsvm: the id or the value of one, or, of any
# number of them, ids or pairs of an id and a value.
FeatureUse: TypeAlias = Literal["id", "value", "ids", "pairs"]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of raw rows.

    A kind overrides the class variables, properties and methods that differ for it.

    Attributes:
      name: Column name.
    """

    name: str

    # Whether its cells are read.
    is_read: ClassVar[bool] = True
    # What it says of a row to training; None for an input.
    target: ClassVar[Target | None] = None
    # Whether rows can be put in the order of its typed values, as of times and numbers.
    is_ordered: ClassVar[bool] = False
    # Whether typed cells may stay dictionary-encoded, as a coder reads them faster.
    keeps_distinct: ClassVar[bool] = False
    feature_use: ClassVar[FeatureUse] = "id"
    # How a report shows its values, by a name of ``profiling.views.VIEWS``; None for no report.
    profile: ClassVar[str | None] = "values"
    # Options that a report names even where they have their defaults.
    SHOWN_OPTIONS: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """Its name in ``columns.KINDS``, in schema files and in messages."""
        return type(self).__name__.lower()

    @property
    def fields(self) -> tuple["Field", ...]:
        """The fields of a model that it becomes."""
        return ()

    @property
    def vocabulary_field(self) -> "Field | None":
        """The column itself if its own training values get ids, else None."""
        return None

    def with_options(self, options: EncodingOptions) -> "Column":
        """The column with those of a user's options that concern its kind."""
        del options
        return self

    def type_cells(self, raw: pa.Array, text: TextFormat) -> TypedCells:
        """Typed cells, and the bad ones by row; the default is of one value in each cell.

        Args:
          raw: Cells of any type, [rows].
          text: How a file's text writes them.

        Raises:
          pa.ArrowInvalid, pa.ArrowNotImplementedError: cells of a type that cannot be read so.
        """
        return type_each(raw, text, self.type_values, keep_distinct=self.keeps_distinct)

    def type_values(self, cells: pa.Array) -> TypedValues:
        """Typed values (null: missing), a mask of the bad, [rows], and what is wrong with them.

        Args:
          cells: Single values of any type, [rows], without what the text's layout adds to them.

        Raises:
          pa.ArrowInvalid, pa.ArrowNotImplementedError: cells of a type that cannot be read so.
        """
        raise NotImplementedError(f"a {self.kind} column types no values")

    def derived(self, typed: pa.Array) -> Mapping[str, pa.Array]:
        """Further typed columns made of its typed cells, by name, each [rows]."""
        del typed
        return {}

    def counted_values(self, typed: pa.ChunkedArray) -> pa.Array:
        """The values of typed cells that the encoder counts to fit vocabularies, [values]."""
        return typed.combine_chunks()

    def profiled_values(self, typed: pa.Array) -> pa.Array:
        """Typed values as a report counts them; both [values]."""
        return typed

    @classmethod
    def infer(cls, name: str, cells: pa.Array) -> "tuple[Column, str] | None":
        """A column of this kind if a sample of raw cells looks like one, and the reason, else None.

        Args:
          name: Of the column.
          cells: Raw cells of any type, [rows]; null where missing.
        """
        # ``infer_schema`` chooses among the package's own kinds once every kind was asked.
        del name, cells
        return None


class Field(Column):
    """A column that is one field of a model; see ``features.Feature``."""

    keeps_distinct: ClassVar[bool] = True
    # Ids of a row; how the vectors of several become one; numbers of a dense field.
    slots: ClassVar[int] = 1
    pooling: ClassVar[str] = "sum"
    numbers: ClassVar[int] = 0
    # Whether the value of a slot may differ from 1.
    has_values: ClassVar[bool] = False
    # Whether a cell with more values than slots keeps its last ones, not its first.
    keeps_last: ClassVar[bool] = False
    # Whether its values are categories: other columns may share their ids, and files give vectors.
    is_category: ClassVar[bool] = False
    # Name of the column whose ids it has; None for ids of its own.
    owner: ClassVar[str | None] = None
    # What one of its values is called in messages.
    value_noun: ClassVar[str] = "value"

    @property
    def fields(self) -> tuple["Field", ...]:
        return (self,)

    @property
    def vocabulary_field(self) -> "Field | None":
        return self if self.coder.HAS_VOCABULARY else None

    @property
    def value_type(self) -> pa.DataType:
        """Of the values in its vocabulary, which are strings or int64."""
        return pa.int64()

    @property
    def coder(self) -> type[FieldCoder]:
        """What makes ids of its typed values."""
        return FieldCoder

    @property
    def slot_names(self) -> tuple[str, ...]:
        """What each of its slots is called, [slots]."""
        return (self.name,)

    @property
    def cross_fault(self) -> str | None:
        """Why the field cannot be part of a cross, else None."""
        if self.slots == 1:
            return None
        return (
            f"column {self.name!r} holds several values in a row, which cannot be crossed; cross "
            "columns of one value"
        )

    @property
    def id_options(self) -> Mapping[str, Any]:
        """Options that must be equal in columns that share ids."""
        return {}

    def encode(
        self,
        typed: pa.ChunkedArray,
        coder: FieldCoder,
        ids: np.ndarray,
        values: np.ndarray | None,
    ) -> int | None:
        """Writes what the slots of the field hold.

        Args:
          typed: Typed cells, [rows].
          coder: Fitted, of the field or of the one that owns its ids.
          ids: Written, [rows, slots].
          values: All 1, [rows, slots]; overwritten by fields with values of their own. None where
            no field of the schema has values.

        Returns:
          How many rows have more values than slots; None for a field of one value.

        Raises:
          UserError: an id that the column cannot have.
        """
        coder.encode(typed, ids[:, 0], None if values is None else values[:, 0])
        return None

    def dense_numbers(self, typed: pa.ChunkedArray) -> np.ndarray:
        """The numbers of a dense field, [rows, numbers]."""
        return np.zeros((len(typed), 0), np.float32)
