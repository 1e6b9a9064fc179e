"""User options that change how all columns of a kind are encoded."""

import dataclasses
from typing import Any, Literal, TypeAlias

NumericTransform: TypeAlias = Literal["log", "log2_floor", "standardise", "quantile"]


@dataclasses.dataclass(frozen=True)
class EncodingOptions:
    """Changes to the columns of a schema; None keeps each column's own option.

    Attributes:
      min_count: For every vocabulary: those of categorical columns, with one value or several, and
        those of ``log2_floor`` buckets. (A column that shares a vocabulary follows its owner.)
      max_size: For every categorical column that has a vocabulary.
      hash_buckets: For every categorical column, in place of its vocabulary; does not apply to
        columns with ``dtype="id"``.
      numeric: Transform of every numeric column.
      buckets: Number of quantile buckets.
      history_length: ``max_length`` of every history column.
      separate_missing: Whether missing values have their own id.
    """

    min_count: int | None = None
    max_size: int | None = None
    hash_buckets: int | None = None
    numeric: NumericTransform | None = None
    buckets: int | None = None
    history_length: int | None = None
    separate_missing: bool | None = None


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}
