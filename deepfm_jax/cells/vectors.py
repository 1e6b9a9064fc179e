"""Types cells as vectors of numbers, with the same length in all rows."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.lists import list_elements
from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.cells.typed import TypedCells, bad_cells


def typed_vectors(raw: pa.Array, text: TextFormat, *, size: int, separator: str) -> TypedCells:
    """Returns lists of ``size`` float32 numbers (zeros: missing), and the bad cells by row.

    Args:
      raw: Lists, or text with separators.
      text: Layout of the text file that they come from.
      size: Length of a vector.
      separator: Text between numbers.

    Raises:
      pa.ArrowInvalid, pa.ArrowNotImplementedError: the cells cannot be read as vectors.
    """
    lengths, elements = list_elements(raw, separator, text)
    numbers, bad_elements = typed_numbers(elements)
    found = pc.is_valid(numbers).to_numpy(zero_copy_only=False)
    values = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    bad_elements = bad_elements | (np.abs(values) > np.finfo(np.float32).max)
    good_elements = found & ~bad_elements
    rows = np.repeat(np.arange(len(raw)), lengths)
    # An empty text has one empty element.
    missing = (lengths <= 1) & (np.bincount(rows[found | bad_elements], minlength=len(raw)) == 0)
    counts = np.bincount(rows[good_elements], minlength=len(raw))
    good = (lengths == size) & (counts == size)
    vectors = np.zeros((len(raw), size), np.float32)
    vectors[good] = values[good[rows]].reshape(-1, size)
    typed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), size)
    return typed, bad_cells(raw, ~(good | missing), f"is not a vector of {size} finite numbers")
