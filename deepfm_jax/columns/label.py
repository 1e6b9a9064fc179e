"""Columns to predict."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.text import as_text, trimmed
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.columns.column import Column, Target
from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Label(Column):
    """A column to predict, 0 or 1; in a schema with several labels a row may lack some of them.

    Attributes:
      name: Column name.
      values: The two texts that mean 0 and 1, such as ``("no", "yes")``; None if the column holds
        0 and 1.
      positive: The only text that means 1; every other text means 0.
      rank: Position among several labels: the lowest rank comes first, and labels of equal rank
        keep the order of the file.

    Raises:
      UserError: ``values`` are not two different texts, or both ``values`` and ``positive`` are
        given.
    """

    values: tuple[str, str] | None = None
    positive: str | None = None
    rank: int = 0

    target: ClassVar[Target | None] = "label"
    profile: ClassVar[str | None] = None

    def __post_init__(self):
        if self.values is not None and self.values[0] == self.values[1]:
            raise UserError(
                f"column {self.name!r}: values={self.values} must be two different texts"
            )
        if self.positive is not None and (self.values is not None or not self.positive.strip()):
            raise UserError(
                f"column {self.name!r}: positive={self.positive!r} must be a text that is not "
                "blank, and excludes values"
            )

    def type_values(self, cells: pa.Array) -> TypedValues:
        """Labels 0 and 1 as float32; see ``Column.type_values``."""
        if self.values is not None:
            return _named(cells, self.values)
        if self.positive is not None:
            return _one_against_all(cells, self.positive)
        values, bad = typed_numbers(cells)
        numbers = values.to_numpy(zero_copy_only=False)
        bad = ~((numbers == 0) | (numbers == 1))
        return values.cast(pa.float32()), bad, "is not a label, 0 or 1"


def _named(cells: pa.Array, values: tuple[str, str]) -> TypedValues:
    found = pc.index_in(pc.utf8_trim_whitespace(as_text(cells)), value_set=pa.array(values))
    bad = pc.is_null(found).to_numpy(zero_copy_only=False)
    return found.cast(pa.float32()), bad, f"is not a label, {values[0]!r} or {values[1]!r}"


def _one_against_all(cells: pa.Array, positive: str) -> TypedValues:
    text = trimmed(cells)
    bad = pc.is_null(text).to_numpy(zero_copy_only=False)
    return pc.equal(text, positive).cast(pa.float32()), bad, "cannot be a label"
