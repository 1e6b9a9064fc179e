"""Describes the fields of a model's input: rows of the embedding table, slots, dense numbers."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from deepfm_jax.errors import UserError

# The id of an empty slot; it reads no row of the table.
PADDING_ID = -1
_MAX_ROWS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Feature:
    """One field of a model's input: ids that read rows of the table, or a vector of numbers.

    Attributes:
      rows: Number of ids of the field; 0 for a dense field.
      slots: Most values that an example can have in the field. An empty slot is padding: id -1 with
        value 0.
      shared_with: Index of the field whose rows this field reads; None if it has its own rows.
      pooling: How the vectors of the slots are combined into one (see ``inputs.ENCODERS``).
      size: Length of a dense field, which has neither rows nor slots; 0 for ids.
      dim: Length of the field's own vectors, which a matrix projects to the model's D; 0 for
        first-order weights without vectors; None for D.
      crossed: Whether the field is a cross product of other columns. Most models treat it like any
        other; Wide & Deep keeps it out of its tower.
      name: The field's name in messages and reports; if empty, its index is used.
    """

    rows: int = 0
    slots: int = 1
    shared_with: int | None = None
    pooling: str = "sum"
    size: int = 0
    dim: int | None = None
    crossed: bool = False
    name: str = ""

    @property
    def is_dense(self) -> bool:
        """Whether the field is a vector of numbers."""
        return self.size > 0


# A plain number is a field with that many rows and one slot.
FieldDims: TypeAlias = Sequence[int | Feature]


def as_features(field_dims: FieldDims) -> tuple[Feature, ...]:
    """The fields of a model, in order.

    Raises:
      UserError: ``field_dims`` is empty; a field has neither rows nor a size, or both; a number is
        not an integer; a field shares the rows of a field that does not exist, has no rows of its
        own, has another number of rows, or has vectors of another length; or the table has more
        than 2^31 - 1 rows (ids are int32).
    """
    try:
        listed = tuple(field_dims)
    except TypeError:
        raise UserError(
            f"field_dims={field_dims!r} must be a list with the rows of each field"
        ) from None
    return _checked(tuple(_as_feature(index, dim) for index, dim in enumerate(listed)))


def _as_feature(index: int, dim: Any) -> Feature:
    feature = dim if isinstance(dim, Feature) else Feature(dim)
    owner, own_dim = feature.shared_with, feature.dim
    numbers = (feature.rows, feature.slots, feature.size, owner or 0, own_dim or 0)
    booleans = any(isinstance(n, bool) for n in (*numbers, owner, own_dim))
    # Nothing is rounded or parsed: the model would look up other rows than the caller meant.
    if booleans or not all(isinstance(n, int | np.integer) for n in numbers):
        raise UserError(f"field_dims[{index}]={dim!r} must be whole numbers, such as 1000")
    return dataclasses.replace(
        feature,
        rows=int(feature.rows),
        slots=0 if feature.size else int(feature.slots),
        size=int(feature.size),
        shared_with=None if owner is None else int(owner),
        dim=None if own_dim is None else int(own_dim),
    )


@functools.lru_cache(maxsize=256)
def _checked(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    if not features or any(_is_empty(feature) for feature in features):
        dims = tuple(f if _has_options(f) else f.rows for f in features)
        raise UserError(
            f"field_dims must have at least one row (and slot) for each field; got {dims}"
        )
    for index, feature in enumerate(features):
        if feature.shared_with is not None:
            _check_owner(index, feature, features)
    total = total_rows(features)
    if total > _MAX_ROWS:
        raise UserError(
            f"field_dims sum to {total} rows; int32 ids reach {_MAX_ROWS}: raise min_count"
        )
    return features


def _is_empty(feature: Feature) -> bool:
    if feature.is_dense:
        return feature.rows != 0
    return feature.rows < 1 or feature.slots < 1 or feature.size < 0 or (feature.dim or 0) < 0


def _has_options(feature: Feature) -> bool:
    return feature != Feature(feature.rows)


def _check_owner(index: int, feature: Feature, features: tuple[Feature, ...]) -> None:
    owner_index = feature.shared_with
    assert owner_index is not None
    if not 0 <= owner_index < len(features):
        raise UserError(
            f"field {index} shares the rows of field {owner_index}, which does not exist"
        )
    owner = features[owner_index]
    if owner.shared_with is not None or owner.rows != feature.rows:
        raise UserError(
            f"field {index} ({feature.rows} rows) shares the rows of field {owner_index}, which "
            f"has {owner.rows if owner.shared_with is None else 'no rows of its own'}"
        )
    if owner.dim != feature.dim:
        raise UserError(
            f"field {index} (dim={feature.dim}) shares the rows of field {owner_index}, whose "
            f"vectors have another length (dim={owner.dim})"
        )


def total_rows(features: Sequence[Feature]) -> int:
    """V: number of rows of the table; shared rows count once."""
    return sum(feature.rows for feature in features if feature.shared_with is None)


def slot_counts(features: Sequence[Feature]) -> tuple[int, ...]:
    """Number of slots of each field, 0 for a dense field; S is their sum."""
    return tuple(feature.slots for feature in features)


def dense_size(features: Sequence[Feature]) -> int:
    """N: total length of the dense fields."""
    return sum(feature.size for feature in features)


def by_slot(features: Sequence[Feature], of_field: np.ndarray) -> np.ndarray:
    """Repeats a value per field for each of its slots: [F] to [S]."""
    return np.repeat(of_field, slot_counts(features))
