"""Columns of vectors of numbers."""

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.cells.typed import TypedCells
from deepfm_jax.cells.vectors import typed_vectors
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.columns.column import Field
from deepfm_jax.columns.option_checks import check_number
from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Vector(Field):
    """A column of precomputed vectors, such as embeddings of a text or a picture.

    A cell is a list of numbers in Parquet and in tables in memory, or text with separators. Every
    vector has ``size`` finite numbers, which are used unchanged, in float32; a missing one is all
    zeros.

    It is one dense field of the model: a learned matrix projects the ``size`` numbers to the length
    D of an embedding, while the vectors themselves stay fixed.

    Attributes:
      name: Column name.
      size: Length of a vector.
      separator: Text between its numbers.

    Raises:
      UserError: the size is out of range, or the separator is empty.
    """

    size: int
    separator: str = "|"

    slots: ClassVar[int] = 0
    profile: ClassVar[str | None] = None

    def __post_init__(self):
        check_number(self, "size", 1)
        if self.separator == "":
            raise UserError(f"column {self.name!r}: a separator must not be empty")

    @property
    def numbers(self) -> int:
        """Length of the dense field."""
        return self.size

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ()

    def type_cells(self, raw: pa.Array, text: TextFormat) -> TypedCells:
        return typed_vectors(raw, text, size=self.size, separator=self.separator)

    def encode(
        self,
        typed: pa.ChunkedArray,
        coder: FieldCoder,
        ids: np.ndarray,
        values: np.ndarray | None,
    ) -> int | None:
        """Writes nothing: a dense field has no slots."""
        del typed, coder, ids, values
        return None

    def dense_numbers(self, typed: pa.ChunkedArray) -> np.ndarray:
        return typed.combine_chunks().flatten().to_numpy().reshape(len(typed), self.size)
