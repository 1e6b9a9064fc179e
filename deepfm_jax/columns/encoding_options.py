"""Options of a user that change how all columns of a kind are encoded."""

import dataclasses
from typing import Any, Literal, TypeAlias

NumericTransform: TypeAlias = Literal["log", "log2_floor", "standardise", "quantile"]


@dataclasses.dataclass(frozen=True)
class EncodingOptions:
    """Changes to the columns of a schema; None keeps each column's own option.

    Attributes:
      min_count: Of every vocabulary: of columns of categories, with one value or several, and of
        ``log2_floor`` buckets. (A column that shares another's vocabulary has none of its own,
        and these options are that one's.)
      max_size: Of every column of categories that has a vocabulary.
      hash_buckets: Of every column of categories, in place of its vocabulary; columns of ids as
        they are stay so.
      numeric: Transform of every numeric column.
      buckets: Number of quantile buckets.
      history_length: Most values of every history column.
      separate_missing: Whether missing values have an id of their own.
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
