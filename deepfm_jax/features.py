"""Fields as a table of embeddings knows them: how many rows, how many slots, whose rows."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from deepfm_jax.errors import UserError

# The id of a slot that a row of data leaves empty; it reads no row of the table.
PADDING_ID = -1
_MAX_ROWS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """A field that is more than rows of its own and one slot.

    Attributes:
      rows: Ids of the field.
      slots: Features that a row of data may have of the field at once. Those that it has not are
        padding: id -1 with value 0, which reads no row of the table. Above 1 the field's embedding
        is e_f = sum_k v_{i_k} x_k over its slots, and its first-order term likewise; whether that
        is a sum or a mean is in the values.
      shared_with: Index of the field whose rows this one reads (one vocabulary for both); None for
        rows of its own.
    """

    rows: int
    slots: int = 1
    shared_with: int | None = None


# A plain number is that many rows, under one slot.
FieldDims: TypeAlias = Sequence[int | FieldSpec]


def field_specs(field_dims: FieldDims) -> tuple[FieldSpec, ...]:
    """The fields of a table, in their order.

    Raises:
      UserError: no field, a field without rows or slots, numbers of them that are not whole, one
        that shares the rows of a field that has none of its own or another number of them, or more
        than 2^31 - 1 rows in all (ids are int32).
    """
    specs = tuple(_as_spec(index, dim) for index, dim in enumerate(_listed(field_dims)))
    if not specs or min(min(spec.rows, spec.slots) for spec in specs) < 1:
        raise UserError(
            "field_dims must name at least one row (and slot) for each field; got "
            f"{tuple(field_dims)}"
        )
    for index, spec in enumerate(specs):
        if spec.shared_with is None:
            continue
        if not 0 <= spec.shared_with < len(specs):
            raise UserError(f"field {index} shares the rows of field {spec.shared_with}: no such")
        owner = specs[spec.shared_with]
        if owner.shared_with is not None or owner.rows != spec.rows:
            raise UserError(
                f"field {index} ({spec.rows} rows) shares those of field {spec.shared_with}, which "
                f"has {owner.rows if owner.shared_with is None else 'none of its own'}"
            )
    total = sum(spec.rows for spec in specs if spec.shared_with is None)
    if total > _MAX_ROWS:
        raise UserError(
            f"field_dims sum to {total} rows; int32 ids reach {_MAX_ROWS}: raise min_count"
        )
    return specs


def _listed(field_dims: Any) -> tuple[Any, ...]:
    try:
        return tuple(field_dims)
    except TypeError:
        raise UserError(f"field_dims={field_dims!r} must be a list of rows of each field") from None


def _as_spec(index: int, dim: Any) -> FieldSpec:
    spec = dim if isinstance(dim, FieldSpec) else FieldSpec(dim)
    owner = spec.shared_with
    numbers = (spec.rows, spec.slots, 0 if owner is None else owner)
    # Nothing is rounded or read from a text: other rows than those meant would be looked up.
    if not all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in numbers):
        raise UserError(f"field_dims[{index}]={dim!r} must be whole numbers, as 1000")
    return FieldSpec(int(spec.rows), int(spec.slots), None if owner is None else int(owner))


def total_rows(field_dims: FieldDims) -> int:
    """V: rows of the table; fields that share rows count once."""
    return sum(spec.rows for spec in field_specs(field_dims) if spec.shared_with is None)


def slot_counts(field_dims: FieldDims) -> tuple[int, ...]:
    """Slots of each field; S is their sum."""
    return tuple(spec.slots for spec in field_specs(field_dims))


def field_offsets(field_dims: FieldDims) -> np.ndarray:
    """First row of each field in the table, [F] int32; a field that shares rows has its owner's."""
    specs = field_specs(field_dims)
    own = np.array([0 if spec.shared_with is not None else spec.rows for spec in specs])
    first = np.cumsum(own) - own
    owners = [
        index if spec.shared_with is None else spec.shared_with for index, spec in enumerate(specs)
    ]
    return first[owners].astype(np.int32)


def by_slot(field_dims: FieldDims, of_field: np.ndarray) -> np.ndarray:
    """What each field has, for each of its slots: [F] to [S]."""
    return np.repeat(of_field, slot_counts(field_dims))
