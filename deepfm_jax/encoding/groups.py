"""Groups of rows, for GAUC: each value of a column as a number that is the same everywhere."""

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64

from deepfm_jax.cells.text import decoded
from deepfm_jax.coders.hashing import hash_integers, hash_text

_NONE = np.int64(-1)


def encode_groups(column: pa.ChunkedArray) -> Int32[np.ndarray, "rows 2"]:
    """A hash of each value, of 63 bits, as its two halves; -1 in both where it is missing.

    Two halves, since what goes through devices has 32 bits. Of a hundred million groups, two share
    a number with a chance of one in two thousand.

    Args:
      column: Typed cells (see ``readers.sources``): strings, or int64.
    """
    cells = decoded(column.combine_chunks())
    if pa.types.is_integer(cells.type):
        hashed = hash_integers(cells.fill_null(0).to_numpy())
    else:
        hashed = hash_text(cells)
    numbers = (hashed >> np.uint64(1)).astype(np.int64)
    numbers[cells.is_null().to_numpy(zero_copy_only=False)] = _NONE
    return numbers.view(np.int32).reshape(-1, 2)


def decode_groups(halves: Int32[np.ndarray, "rows 2"]) -> Int64[np.ndarray, "rows"]:
    """The numbers of the groups, from 0; negative for a row without one."""
    return np.ascontiguousarray(halves).view(np.int64)[:, 0]
