"""Types categorical cells: strings, integers, or the ids of a field."""

from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.numbers import typed_integers
from deepfm_jax.cells.text import as_text, empty_to_null, rows_with
from deepfm_jax.cells.typed import TypedValues

CategoricalType: TypeAlias = Literal["string", "integer", "id"]


def typed_categories(raw: pa.Array, dtype: CategoricalType, size: int | None = None) -> TypedValues:
    """Types cells as strings or int64 (null: missing); with ``size``, as ids below ``size``."""
    if dtype == "string":
        text = empty_to_null(as_text(raw))
        bad = np.zeros(len(raw), dtype=bool)
        bad[rows_with(text, "\0")] = True
        return text, bad, "holds NUL bytes"
    values, bad = typed_integers(raw)
    if size is None:
        return values, bad, "is not an integer"
    numbers = values.fill_null(0).to_numpy()
    bad = bad | (numbers < 0) | (numbers >= size)
    return values, bad, f"is not an id from 0 to {size - 1}"
