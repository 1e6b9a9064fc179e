"""Types cells of several values as lists: text with separators, lists, weights."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.text import as_text, cleaned, is_text
from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.cells.typed import BadCell, TypedCells, TypedValues


def typed_lists(
    raw: pa.Array,
    text: TextFormat,
    type_values: Callable[[pa.Array], TypedValues],
    *,
    separator: str,
    weight_separator: str | None = None,
) -> TypedCells:
    """Types all values of each cell, and returns the first bad value of each bad row.

    Args:
      raw: Lists, or text with separators.
      text: Layout of the text file that they come from.
      type_values: Types the values of all cells.
      separator: Text between values.
      weight_separator: Text between a value and its weight; None if there are no weights.

    Returns:
      Lists of the typed values or, with weights, of structs of ``value`` and ``weight`` (float32,
      above 0), and the bad cells by row. No list is null; that of a missing cell is empty.

    Raises:
      pa.ArrowInvalid, pa.ArrowNotImplementedError: the cells cannot be read as lists.
    """
    lengths, elements = list_elements(raw, separator, text)
    weights, bad_weights = None, np.zeros(len(elements), dtype=bool)
    values = elements
    if weight_separator is not None:
        values, weights, bad_weights = _weighted(elements, weight_separator)
    if is_text(values.type):
        values = cleaned(values, text)
    typed, bad_values, reason = type_values(values)
    kept = pc.is_valid(typed).to_numpy(zero_copy_only=False)
    if weights is not None:
        bad_weights &= kept | bad_values  # The weight of a missing value is ignored.
        kept = kept & (weights > 0)
        typed = pa.StructArray.from_arrays(
            [typed, pa.array(weights, pa.float32())], names=["value", "weight"]
        )
    rows = np.repeat(np.arange(len(raw)), lengths)
    faults: dict[int, BadCell] = {}
    for element in np.flatnonzero(bad_values | bad_weights):
        fault = reason
        if not bad_values[element]:
            fault = f"needs a weight after {weight_separator!r}, a finite number of 0 or more"
        faults.setdefault(int(rows[element]), BadCell(str(elements[int(element)].as_py()), fault))
    if not kept.all():
        typed = typed.filter(pa.array(kept))
    offsets = np.zeros(len(raw) + 1, np.int32)
    np.cumsum(np.bincount(rows[kept], minlength=len(raw)), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), typed), faults


def list_elements(raw: pa.Array, separator: str, text: TextFormat) -> tuple[np.ndarray, pa.Array]:
    """Returns the number of elements in each cell, and the elements of all cells in one array.

    Cells are lists, or text with separators; an empty text has one empty element.
    """
    if pa.types.is_map(raw.type):
        pair = pa.struct([("value", raw.type.key_type), ("weight", raw.type.item_type)])
        raw = raw.cast(pa.list_(pair))
    elif not is_list(raw.type):
        # A single value, such as a number in a table, is read as text too.
        cells = cleaned(as_text(raw), text)
        raw = pc.split_pattern(pc.fill_null(cells, ""), separator)
    # Not cast to one layout, because pyarrow casts list views to broken arrays.
    lengths = pc.fill_null(pc.list_value_length(raw), 0).to_numpy(zero_copy_only=False)
    return lengths, pc.list_flatten(raw)


def _weighted(elements: pa.Array, separator: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Returns values, float32 weights (0 for bad ones), and a mask of the bad weights."""
    if pa.types.is_struct(elements.type):
        if elements.type.num_fields != 2:
            raise pa.ArrowInvalid("a pair of a value and a weight has two fields")
        values, weight_cells = elements.flatten()
    else:
        texts = pc.fill_null(as_text(elements), "")
        parts = pc.split_pattern(texts, separator, max_splits=1, reverse=True)
        values = pc.list_element(parts, 0)
        ends = parts.offsets.to_numpy()[1:] - 1
        alone = pc.equal(pc.list_value_length(parts), 1)
        last = pc.list_flatten(parts).take(pa.array(ends - parts.offsets[0].as_py()))
        weight_cells = pc.if_else(alone, pa.scalar(None, pa.string()), last)
    numbers, bad = typed_numbers(weight_cells)
    missing = numbers.is_null().to_numpy(zero_copy_only=False)
    weights = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    bad = bad | missing | (weights < 0) | (weights > np.finfo(np.float32).max)
    return values, np.where(bad, 0.0, weights).astype(np.float32), bad


def is_list(kind: pa.DataType) -> bool:
    """Whether cells of this type are lists, in any layout."""
    tests = (
        *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
        *(pa.types.is_list_view, pa.types.is_large_list_view, pa.types.is_map),
    )
    return any(test(kind) for test in tests)
