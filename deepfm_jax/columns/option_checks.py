"""Checks of the options that say how values get their ids, and whose ids."""

from typing import Any

from deepfm_jax.errors import UserError

_MOST_IDS = 2**31 - 1


def check_number(column: Any, key: str, least: int) -> None:
    """Whether an option of a column is a number that can count ids.

    Raises:
      UserError: it is below ``least``, or beyond int32.
    """
    value = getattr(column, key)
    if not least <= value < _MOST_IDS:
        raise UserError(
            f"column {column.name!r}: {key}={value!r} must be from {least} to {_MOST_IDS - 1}"
        )


def has_vocabulary(column: Any) -> bool:
    """Whether ids are given to the column's own training values (see ``Categorical``)."""
    return column.hash_buckets is None and column.dtype != "id" and column.shares_with is None


def check_coding(column: Any) -> None:
    """Whether a column's options of how its values get ids go with each other.

    Raises:
      UserError: one that is out of range, or does not go with another.
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
        raise UserError(f"column {column.name!r}: ids as they are (dtype 'id') are not hashed")
    if not has_vocabulary(column) and (column.min_count > 1 or column.max_size is not None):
        raise UserError(
            f"column {column.name!r}: min_count and max_size are of a vocabulary, and hashed "
            "values and ids as they are have none"
        )


def _check_sharing(column: Any) -> None:
    if column.shares_with == column.name:
        raise UserError(f"column {column.name!r}: shares_with names the column itself")
    own = {"min_count": 1, "separate_missing": False, "max_size": None, "hash_buckets": None}
    for key, default in own.items():
        if getattr(column, key) != default:
            raise UserError(
                f"column {column.name!r}: {key} is decided by the column whose vocabulary it "
                f"shares; set it on {column.shares_with!r}"
            )
