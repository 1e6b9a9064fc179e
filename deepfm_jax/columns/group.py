"""Columns that group rows."""

import dataclasses
from typing import ClassVar, Literal

import pyarrow as pa

from deepfm_jax.cells.categories import typed_categories
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.columns.column import Column, Target


@dataclasses.dataclass(frozen=True)
class Group(Column):
    """A column that groups rows for GAUC, for example by user; it is not a feature.

    If the groups are also a feature, declare a ``Categorical`` with ``group`` instead. Rows without
    a value are in no group.

    Attributes:
      name: Column name.
      dtype: As in ``Categorical``.
    """

    dtype: Literal["string", "integer"] = "string"

    target: ClassVar[Target | None] = "group"

    def type_values(self, cells: pa.Array) -> TypedValues:
        return typed_categories(cells, self.dtype)
