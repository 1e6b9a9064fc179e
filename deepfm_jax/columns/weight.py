"""Columns of row weights."""

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.columns.column import Column, Target


@dataclasses.dataclass(frozen=True)
class Weight(Column):
    """A column of weights: how much each row counts in the training loss and in all metrics.

    Weights are finite and at least 0; a row without a weight is a bad row.
    """

    target: ClassVar[Target | None] = "weight"

    def type_values(self, cells: pa.Array) -> TypedValues:
        values, bad = typed_numbers(cells)
        numbers = values.to_numpy(zero_copy_only=False)
        # A weight must also fit float32.
        bad = bad | ~((numbers >= 0) & (numbers <= np.finfo(np.float32).max))
        return values, bad, "is not a weight, a finite number of 0 or more"
