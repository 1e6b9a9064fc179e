"""The base classes of columns, which define how every kind types, counts and encodes its cells.

A kind is a frozen dataclass in its own file; its fields are its options. Code that reads, counts,
encodes or reports on columns calls these methods and never checks the kind.
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

# What training needs besides the inputs. Every label is a ``Label`` or an instance of a subclass.
Target: TypeAlias = Literal["label", "weight", "group"]
# What a column reads from libsvm features ``id:value``: the id or the value of a single feature,
# or the ids or (id, value) pairs of any number of features.
FeatureUse: TypeAlias = Literal["id", "value", "ids", "pairs"]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of raw rows.

    A kind overrides the class variables, properties and methods in which it differs.

    Attributes:
      name: Column name.
    """

    name: str

    # Whether the cells are read.
    is_read: ClassVar[bool] = True
    # The role of the column in training; None for an input.
    target: ClassVar[Target | None] = None
    # Whether rows can be sorted by the typed values, such as times and numbers.
    is_ordered: ClassVar[bool] = False
    # Whether typed cells may stay dictionary-encoded, which a coder reads faster.
    keeps_distinct: ClassVar[bool] = False
    feature_use: ClassVar[FeatureUse] = "id"
    # How a report shows the values, a key of ``profiling.views.VIEWS``; None for no report.
    profile: ClassVar[str | None] = "values"
    # Options that a report names even if they have their defaults.
    SHOWN_OPTIONS: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """The name of the kind in ``columns.KINDS``, in schema files and in messages."""
        return type(self).__name__.lower()

    @property
    def fields(self) -> tuple["Field", ...]:
        """The model's fields that are made from the column."""
        return ()

    @property
    def vocabulary_field(self) -> "Field | None":
        """The column itself if it has its own vocabulary, else None."""
        return None

    def with_options(self, options: EncodingOptions) -> "Column":
        """Applies the user's options that concern this kind."""
        del options
        return self

    def type_cells(self, raw: pa.Array, text: TextFormat) -> TypedCells:
        """Types cells, and returns the bad ones by row; by default, each cell holds one value.

        Args:
          raw: Cells of any type, [rows].
          text: Layout of the text file that they come from.

        Raises:
          pa.ArrowInvalid, pa.ArrowNotImplementedError: the cells have an unsupported type.
        """
        return type_each(raw, text, self.type_values, keep_distinct=self.keeps_distinct)

    def type_values(self, cells: pa.Array) -> TypedValues:
        """Returns typed values (null: missing), a mask of the bad ones, [rows], and the reason.

        Args:
          cells: Single values of any type, [rows], already cleaned of the text file's layout.

        Raises:
          pa.ArrowInvalid, pa.ArrowNotImplementedError: the cells have an unsupported type.
        """
        raise NotImplementedError(f"a {self.kind} column types no values")

    def derived(self, typed: pa.Array) -> Mapping[str, pa.Array]:
        """Returns further typed columns made from the typed cells, by name, each [rows]."""
        del typed
        return {}

    def counted_values(self, typed: pa.ChunkedArray) -> pa.Array:
        """Returns the values that the encoder counts to fit vocabularies, [values]."""
        return typed.combine_chunks()

    def profiled_values(self, typed: pa.Array) -> pa.Array:
        """Converts typed values to the form in which a report counts them; both [values]."""
        return typed

    @classmethod
    def infer(cls, name: str, cells: pa.Array) -> "tuple[Column, str] | None":
        """Returns a column of this kind and the reason if the sample looks like one, else None.

        Args:
          name: Name of the column.
          cells: A sample of raw cells of any type, [rows]; null where missing.
        """
        # ``infer_schema`` chooses among the package's own kinds if every kind returns None.
        del name, cells
        return None


class Field(Column):
    """A column that is one field of a model; see ``features.Feature``."""

    keeps_distinct: ClassVar[bool] = True
    # Ids per row, how their vectors are pooled, and the length of a dense field.
    slots: ClassVar[int] = 1
    pooling: ClassVar[str] = "sum"
    numbers: ClassVar[int] = 0
    # Whether the value of a slot may differ from 1.
    has_values: ClassVar[bool] = False
    # Whether a cell with more values than slots keeps its last ones instead of its first.
    keeps_last: ClassVar[bool] = False
    # Whether the values are categories, which can share ids and have pretrained vectors.
    is_category: ClassVar[bool] = False
    # Name of the column whose ids this one uses; None if it has its own.
    owner: ClassVar[str | None] = None
    # The word for one value in messages.
    value_noun: ClassVar[str] = "value"

    @property
    def fields(self) -> tuple["Field", ...]:
        return (self,)

    @property
    def vocabulary_field(self) -> "Field | None":
        return self if self.coder.HAS_VOCABULARY else None

    @property
    def value_type(self) -> pa.DataType:
        """Type of the values in the vocabulary: string or int64."""
        return pa.int64()

    @property
    def coder(self) -> type[FieldCoder]:
        """The class that turns typed values into ids."""
        return FieldCoder

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The name of each slot, [slots]."""
        return (self.name,)

    @property
    def cross_fault(self) -> str | None:
        """The reason why the field cannot be part of a cross; None if it can."""
        if self.slots == 1:
            return None
        return (
            f"column {self.name!r} holds several values in a row, which cannot be crossed; cross "
            "columns of one value"
        )

    @property
    def id_options(self) -> Mapping[str, Any]:
        """Options that must be equal for columns to share ids."""
        return {}

    def encode(
        self,
        typed: pa.ChunkedArray,
        coder: FieldCoder,
        ids: np.ndarray,
        values: np.ndarray | None,
    ) -> int | None:
        """Writes the ids and values of the field's slots.

        Args:
          typed: Typed cells, [rows].
          coder: The fitted coder of the field, or of the owner of its ids.
          ids: Overwritten, [rows, slots].
          values: All 1 on entry, [rows, slots]; overwritten by fields that have values. None if no
            field of the schema has values.

        Returns:
          Number of rows with more values than slots; None for a field of one value.

        Raises:
          UserError: an id is out of range.
        """
        coder.encode(typed, ids[:, 0], None if values is None else values[:, 0])
        return None

    def dense_numbers(self, typed: pa.ChunkedArray) -> np.ndarray:
        """Returns the numbers of a dense field, [rows, numbers]."""
        return np.zeros((len(typed), 0), np.float32)
