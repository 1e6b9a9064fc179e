"""Checks of the options that determine how values get their ids."""

from typing import Any

from deepfm_jax.errors import UserError

_MOST_IDS = 2**31 - 1


def check_number(column: Any, key: str, least: int) -> None:
    """Checks that an option of a column can count ids.

    Raises:
      UserError: the option is less than ``least``, or does not fit int32.
    """
    value = getattr(column, key)
    if not least <= value < _MOST_IDS:
        raise UserError(
            f"column {column.name!r}: {key}={value!r} must be from {least} to {_MOST_IDS - 1}"
        )


def has_vocabulary(column: Any) -> bool:
    """Whether the column has a vocabulary of its training values (see ``Categorical``)."""
    return column.hash_buckets is None and column.dtype != "id" and column.shares_with is None


def check_coding(column: Any) -> None:
    """Checks the options that determine how a column's values get ids.

    Raises:
      UserError: an option is out of range, or conflicts with another.
    """
    check_number(column, "min_count", 1)
    for key in ("max_size", "hash_buckets", "size"):
        if getattr(column, key) is not None:
            check_number(column, key, 1)
    if (column.dtype == "id") != (column.size is not None):
        raise UserError(f"column {column.name!r}: dtype 'id' and size go together; give both")
    if column.shares_with is not None:
        _check_sharing(column)
    if column.dtype == "id" and column.hash_buckets is not None:
        raise UserError(f"column {column.name!r}: dtype 'id' excludes hash_buckets")
    if not has_vocabulary(column) and (column.min_count > 1 or column.max_size is not None):
        raise UserError(
            f"column {column.name!r}: min_count and max_size apply to a vocabulary, which a column "
            "with hash_buckets or dtype 'id' does not have"
        )


def _check_sharing(column: Any) -> None:
    if column.shares_with == column.name:
        raise UserError(f"column {column.name!r}: shares_with names the column itself")
    own = {"min_count": 1, "separate_missing": False, "max_size": None, "hash_buckets": None}
    for key, default in own.items():
        if getattr(column, key) != default:
            raise UserError(
                f"column {column.name!r}: {key} is set by the column whose vocabulary it shares; "
                f"set it on {column.shares_with!r}"
            )
