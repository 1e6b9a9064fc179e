"""Columns that say which rows belong together."""

import dataclasses
from typing import ClassVar, Literal

import pyarrow as pa

from deepfm_jax.cells.categories import typed_categories
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.columns.column import Column, Target


@dataclasses.dataclass(frozen=True)
class Group(Column):
    """A column that says which rows belong together, as a user's: for GAUC, and no feature.

    Where the groups are a feature as well, they are a ``Categorical`` with ``group``. Rows without
    a value are in no group.

    Attributes:
      name: Column name.
      dtype: As in ``Categorical``.
    """

    dtype: Literal["string", "integer"] = "string"

    target: ClassVar[Target | None] = "group"

    def type_values(self, cells: pa.Array) -> TypedValues:
        return typed_categories(cells, self.dtype)
