"""From raw cells to vectors of numbers, of one length in all rows."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.readers.cells import typed_numbers
from deepfm_jax.readers.list_cells import list_elements
from deepfm_jax.schema import TextFormat
from deepfm_jax.schema.columns import Vector


def typed_vectors(
    raw: pa.Array, column: Vector, text: TextFormat
) -> tuple[pa.FixedSizeListArray, np.ndarray, str]:
    """Vectors of float32 (zeros: missing), which rows are bad, and what is wrong with those.

    Raises:
      pa.ArrowInvalid, pa.ArrowNotImplementedError: cells of a type that cannot be read as vectors.
    """
    lengths, elements = list_elements(raw, column.separator, text)
    numbers, bad_elements = typed_numbers(elements)
    found = pc.is_valid(numbers).to_numpy(zero_copy_only=False)
    values = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    bad_elements = bad_elements | (np.abs(values) > np.finfo(np.float32).max)
    good_elements = found & ~bad_elements
    rows = np.repeat(np.arange(len(raw)), lengths)
    # An empty text has one element, which is empty.
    missing = (lengths <= 1) & (np.bincount(rows[found | bad_elements], minlength=len(raw)) == 0)
    counts = np.bincount(rows[good_elements], minlength=len(raw))
    good = (lengths == column.size) & (counts == column.size)
    vectors = np.zeros((len(raw), column.size), np.float32)
    vectors[good] = values[good[rows]].reshape(-1, column.size)
    typed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), column.size)
    return typed, ~(good | missing), f"is not a vector of {column.size} finite numbers"
