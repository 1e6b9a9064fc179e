"""The layout of a table: which rows of which arrays belong to each field.

All first-order weights, and all vectors of the model's length D, share one *space* of row numbers:
``first_order`` [V] and ``embedding`` [V', D] are looked up together. Rows of fields without vectors
of length D come last, so V' may be smaller than V. Each other length d has its own space, with the
array ``embedding_d``.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from deepfm_jax.errors import UserError
from deepfm_jax.features import PADDING_ID, Feature, slot_counts
from deepfm_jax.typing import Ids


@dataclasses.dataclass(frozen=True)
class Space:
    """Arrays that are looked up by the same row numbers.

    Attributes:
      arrays: Name, rows and length of each array: ``embedding``, V', D. An array of length 0 has
        one number per row.
      fields: Index of each field that reads the space, ascending.
      first_rows: First row of each of these fields.
      rows: V, the number of rows; an array may have fewer.
    """

    arrays: tuple[tuple[str, int, int], ...]
    fields: tuple[int, ...]
    first_rows: tuple[int, ...]
    rows: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(name for name, _, _ in self.arrays)

    def first_row(self, field: int) -> int:
        """First row of a field, by its index among all fields."""
        return self.first_rows[self.fields.index(field)]


@dataclasses.dataclass(frozen=True)
class TableLayout:
    """The spaces of a table, and the array with each field's vectors.

    Attributes:
      features: The fields.
      spaces: See ``Space``; a field may read first-order weights in one space and vectors in
        another.
      dim: D; 0 for a table with first-order weights only.
      first_order: Whether the table has first-order weights.
    """

    features: tuple[Feature, ...]
    spaces: tuple[Space, ...]
    dim: int
    first_order: bool

    def vectors_of(self, field: int) -> str | None:
        """Name of the array with a field's vectors; None for a field without vectors."""
        own = self.features[field].dim
        length = self.dim if own is None else own
        if self.features[field].is_dense or not (self.dim and length):
            return None
        return _array_name(length, self.dim)

    def space_of(self, array: str) -> Space:
        """The space of an array."""
        return next(space for space in self.spaces if array in space.names)

    def row_ids(self, ids: Ids) -> tuple[Int[Array, "batch _"], ...]:
        """Row numbers of a batch in each space, [B, slots of its fields].

        An id outside its field's range becomes the space's V, which is out of range. Such an id is
        never added to anything, so no sum overflows.

        Args:
          ids: [B, S], local to each field.
        """
        return tuple(self._row_ids(space, ids) for space in self.spaces)

    def _row_ids(self, space, ids):
        slots = self.slots_of(space)
        if len(slots) < ids.shape[1]:
            ids = ids[:, slots]
        counts = [self.features[field].slots for field in space.fields]
        tops = np.repeat([self.features[field].rows for field in space.fields], counts)
        first_rows = np.repeat(space.first_rows, counts).astype(np.int32)
        inside = (ids >= 0) & (ids < tops.astype(np.int32)[None, :])
        # Without this, the first id beyond a field would read the next field's first row.
        local = jnp.where(inside, ids, 0).astype(jnp.int32)
        return jnp.where(inside, local + first_rows[None, :], space.rows)

    def slots_of(self, space: Space) -> np.ndarray:
        """Indices among all S slots of the slots that read a space, ascending."""
        counts = slot_counts(self.features)
        starts = np.cumsum(counts) - counts
        parts = [np.arange(starts[field], starts[field] + counts[field]) for field in space.fields]
        return np.concatenate(parts)


@functools.lru_cache(maxsize=256)
def table_layout(features: tuple[Feature, ...], dim: int, first_order: bool) -> TableLayout:
    """The layout of a table.

    Args:
      features: The fields (see ``features.as_features``).
      dim: D; 0 for first-order weights only.
      first_order: Whether the table has first-order weights.

    Raises:
      UserError: the table has no array.
    """
    if not (first_order or dim):
        raise UserError("a table needs first-order weights or embed_dim above 0")
    with_rows = [index for index, feature in enumerate(features) if not feature.is_dense]
    lengths = {index: _length(features[index], dim) for index in with_rows}
    main = [index for index in with_rows if first_order or lengths[index] == dim]
    spaces = []
    if main:
        ordered = sorted(main, key=lambda index: lengths[index] != dim)
        arrays = []
        if first_order:
            arrays.append(("first_order", _rows(features, main), 0))
        in_full = [index for index in main if dim and lengths[index] == dim]
        if in_full:
            arrays.append(("embedding", _rows(features, in_full), dim))
        spaces.append(_space(features, main, ordered, arrays))
    for length in sorted({lengths[index] for index in with_rows} - {0, dim}):
        fields = [index for index in with_rows if lengths[index] == length]
        arrays = [(_array_name(length, dim), _rows(features, fields), length)]
        spaces.append(_space(features, fields, fields, arrays))
    return TableLayout(features, tuple(spaces), dim, first_order)


def _space(
    features: Sequence[Feature],
    fields: Sequence[int],
    ordered: Sequence[int],
    arrays: Sequence[tuple[str, int, int]],
) -> Space:
    """A space of ``fields`` whose rows are consecutive, in the order of ``ordered``."""
    first, start = {}, 0
    for index in ordered:
        if features[index].shared_with is None:
            first[index] = start
            start += features[index].rows
    first_rows = [first[_owner(features, index)] for index in fields]
    return Space(tuple(arrays), tuple(fields), tuple(first_rows), start)


def _owner(features: Sequence[Feature], index: int) -> int:
    owner = features[index].shared_with
    return index if owner is None else owner


def _length(feature: Feature, dim: int) -> int:
    return dim if feature.dim is None or not dim else feature.dim


def _rows(features: Sequence[Feature], fields: Sequence[int]) -> int:
    return sum(features[index].rows for index in fields if features[index].shared_with is None)


def _array_name(length: int, dim: int) -> str:
    return "embedding" if length == dim else f"embedding_{length}"


def kind_of(array: str) -> str:
    """The kind of an array of a table: ``first_order`` for weights, ``embedding`` for vectors."""
    return array if array == "first_order" else "embedding"


def lowest_ids(features: Sequence[Feature]) -> np.ndarray:
    """The lowest valid id of each field, [F]; the padding id for fields with several slots."""
    return np.where(np.array(slot_counts(features)) > 1, PADDING_ID, 0)
