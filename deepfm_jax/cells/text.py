"""Raw cells as text: cleans them of the layout of a file, and finds the missing ones."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.text_format import TextFormat


def cleaned(raw: pa.Array, text: TextFormat) -> pa.Array:
    """Strips the spaces around cells and sets missing values to null, as the layout specifies."""
    if not (text.trim or text.missing):
        return raw
    cells = as_text(raw)
    if text.trim:
        cells = pc.utf8_trim_whitespace(cells)
    if text.missing:
        missing = pc.is_in(cells, value_set=pa.array(text.missing, pa.string()))
        cells = pc.if_else(missing, pa.scalar(None, pa.string()), cells)
    return cells


def missing_cells(raw: pa.Array, text: TextFormat) -> np.ndarray:
    """A mask of missing cells: null, NaN, blank text, or a text that the layout calls missing."""
    raw = decoded(raw)
    if is_text(raw.type):
        raw = trimmed(cleaned(raw, text))
    return pc.is_null(raw, nan_is_null=True).to_numpy(zero_copy_only=False)


def rows_with(text: pa.Array, character: str) -> np.ndarray:
    """The rows that contain an ASCII character; a scan of the bytes if none does."""
    if pa.types.is_dictionary(text.type):
        found = rows_with(text.dictionary, character)
        return np.flatnonzero(np.isin(text.indices.fill_null(-1), found)) if len(found) else found
    data = text.buffers()[2]
    if data is None or not (np.frombuffer(data, np.uint8) == ord(character)).any():
        return np.zeros(0, np.int64)
    found = pc.fill_null(pc.match_substring(text, character), False)
    return np.flatnonzero(found.to_numpy(zero_copy_only=False))


def empty_to_null(text: pa.Array) -> pa.Array:
    """Sets empty texts to null."""
    empty = pc.fill_null(pc.equal(pc.utf8_length(text), 0), False)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text)


def trimmed(raw: pa.Array) -> pa.Array:
    """Converts cells of any type to text without surrounding spaces; empty cells become null."""
    return empty_to_null(pc.utf8_trim_whitespace(as_text(raw)))


def decoded(cells: pa.Array) -> pa.Array:
    """Decodes cells that may be dictionary-encoded."""
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells


def is_text(kind: pa.DataType) -> bool:
    """Whether cells of this type are strings, in any encoding."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests)


def as_text(raw: pa.Array) -> pa.Array:
    """Converts cells of any type to strings; NaN becomes null."""
    if pa.types.is_dictionary(raw.type):  # pyarrow cannot decode every string type.
        words = raw.dictionary.cast(pa.string())
        return pa.DictionaryArray.from_arrays(raw.indices, words).cast(pa.string())
    if pa.types.is_floating(raw.type):
        raw = pc.if_else(pc.fill_null(pc.is_nan(raw), False), pa.scalar(None, raw.type), raw)
    return raw.cast(pa.string())
