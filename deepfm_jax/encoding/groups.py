"""Groups of rows for GAUC: a hash of each value, the same on every machine."""

import numpy as np
import pyarrow as pa
from jaxtyping import Int32, Int64

from deepfm_jax.cells.text import decoded
from deepfm_jax.coders.hashing import hash_integers, hash_text

_NO_GROUP = np.int64(-1)


def encode_groups(column: pa.ChunkedArray) -> Int32[np.ndarray, "rows 2"]:
    """Hashes each value to 63 bits, split in two halves; both are -1 if the value is missing.

    The halves have 32 bits because device arrays do. Among a hundred million groups, the chance
    that any two share a number is one in two thousand.

    Args:
      column: Typed cells (see ``readers.sources``): strings, or int64.
    """
    cells = decoded(column.combine_chunks())
    if pa.types.is_integer(cells.type):
        hashed = hash_integers(cells.fill_null(0).to_numpy())
    else:
        hashed = hash_text(cells)
    numbers = (hashed >> np.uint64(1)).astype(np.int64)
    numbers[cells.is_null().to_numpy(zero_copy_only=False)] = _NO_GROUP
    return numbers.view(np.int32).reshape(-1, 2)


def decode_groups(halves: Int32[np.ndarray, "rows 2"]) -> Int64[np.ndarray, "rows"]:
    """Joins the halves to group numbers, at least 0; negative for a row without a group."""
    return np.ascontiguousarray(halves).view(np.int64)[:, 0]
