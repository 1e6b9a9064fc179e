"""The kinds of columns that a click log may have, each with what becomes of its cells."""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

from deepfm_jax.errors import UserError
from deepfm_jax.schema.column_options import (
    CategoricalType,
    check_coding,
    check_number,
    has_vocabulary,
)
from deepfm_jax.schema.list_columns import History, MultiValued

NumericTransform: TypeAlias = Literal["log", "log2_floor", "standardise", "quantile"]
TimePart: TypeAlias = Literal["hour", "weekday", "weekend", "day", "month"]


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column of string or integer values; each value kept gets one id of the field.

    Ids come from a vocabulary of the training values, or from a hash (``hash_buckets``), or they
    are the column's own (``dtype="id"``).

    Attributes:
      name: Column name.
      dtype: ``"string"`` takes a cell as it stands; ``"integer"`` parses it, so that ``007``,
        ``7`` and ``7.0`` are one value and ``x7`` is a bad row; ``"id"`` takes integers from 0 to
        ``size - 1`` as ids of the field. One outside that range is a bad row and not an unseen
        value: whoever numbered the values knows how many there are, and a wrong ``size`` would go
        unnoticed. A missing cell has id 0, which is the column's own 0 too.
      min_count: Values seen in fewer training rows than this share id 0.
      separate_missing: Give missing cells id 1, apart from the unseen and rare values of id 0.
        Without a vocabulary there are no such values, and it changes nothing.
      max_size: Most values that have an id: the most frequent ones; of equally frequent values the
        lesser ones, by number or by the bytes of their text.
      hash_buckets: Hash values into so many ids, 1 to ``hash_buckets``, instead of keeping a
        vocabulary; values that meet in a bucket share its id. A missing cell has id 0. The hash
        is of the value alone (see ``encoding.hashing``), so it is the same everywhere.
      size: Ids of a column of ids.
      shares_with: Another column, whose ids this one's values have: the vocabulary of that column,
        its *owner*, is fitted on the values of all columns that share it, and they read the same
        rows of the embedding table. The owner's options say how: ``min_count``, ``max_size``,
        ``hash_buckets``, ``separate_missing``. Both must have one ``dtype`` (and ``size``).
      group: Whether the column is the group of GAUC as well (see ``Group``).

    Raises:
      UserError: an option that does not exist, is out of range, or does not go with another.
    """

    name: str
    dtype: CategoricalType = "string"
    min_count: int = 1
    separate_missing: bool = False
    max_size: int | None = None
    hash_buckets: int | None = None
    size: int | None = None
    shares_with: str | None = None
    group: bool = False

    # A field of one id and the value 1 (see ``features.Feature``).
    slots: ClassVar[int] = 1
    pooling: ClassVar[str] = "sum"
    numbers: ClassVar[int] = 0
    has_values: ClassVar[bool] = False

    def __post_init__(self):
        check_coding(self)

    @property
    def has_vocabulary(self) -> bool:
        """Whether ids are given to the column's own training values."""
        return has_vocabulary(self)


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A column of numbers, as one value field or as buckets.

    Attributes:
      name: Column name.
      transform: ``"log"``: id 1 with value sign(x) ln(1 + abs(x)); ``"standardise"``: id 1 with
        value (x - mean) / std of the training rows; ``"log2_floor"``: the bucket floor(ln(x)^2) for
        x > 2, else floor(x), as a category (the Criteo winners' transform); ``"quantile"``: the
        index of the training quantile that x falls in, as a category. A missing cell has id 0 and
        value 1, so it owns an embedding.
      buckets: Number of quantile buckets.
      min_count: Buckets of ``"log2_floor"`` seen in fewer training rows than this share id 0.
      separate_missing: For the two bucket transforms, as in ``Categorical``.

    Raises:
      UserError: an option that does not exist or is out of range.
    """

    name: str
    transform: NumericTransform = "log"
    buckets: int = 32
    min_count: int = 1
    separate_missing: bool = False

    slots: ClassVar[int] = 1
    pooling: ClassVar[str] = "sum"
    numbers: ClassVar[int] = 0

    def __post_init__(self):
        check_number(self, "buckets", 1)
        check_number(self, "min_count", 1)

    @property
    def is_value_field(self) -> bool:
        """Whether the number itself is the feature's value, under one id."""
        return self.transform in ("log", "standardise")

    @property
    def has_values(self) -> bool:
        """Whether the value of the field's slot may differ from 1."""
        return self.is_value_field


@dataclasses.dataclass(frozen=True)
class Timestamp:
    """A column of points in time, read as categories: the hour, the weekday and so on.

    Attributes:
      name: Column name.
      format: ``"iso"`` (``2014-10-21``, ``2014-10-21 09:30:00``), ``"unix"`` (seconds since 1970),
        ``"unix_ms"``, or a format of strptime as ``"%y%m%d%H"``. Times with a zone are read in UTC;
        a Parquet column of times or dates needs no format.
      parts: The categories, each a field named ``NAME_PART``: ``hour`` (0 to 23), ``weekday``
        (Monday is 0), ``weekend`` (0 or 1), ``day`` of the month and ``month``. With none of them
        the column has no field, and serves to split rows by time.
      separate_missing: As in ``Categorical``.

    Raises:
      UserError: a part that does not exist or is there twice.
    """

    name: str
    format: str = "iso"
    parts: tuple[TimePart, ...] = ("hour", "weekday")
    separate_missing: bool = False

    def __post_init__(self):
        if self.format not in ("iso", "unix", "unix_ms") and "%" not in self.format:
            raise UserError(
                f"column {self.name!r}: format={self.format!r} is unknown; use 'iso', 'unix', "
                "'unix_ms' or one of strptime, as '%Y-%m-%d'"
            )
        if len(set(self.parts)) < len(self.parts):
            raise UserError(f"column {self.name!r}: parts={self.parts} has one of them twice")

    @property
    def fields(self) -> tuple[Categorical, ...]:
        """One category for each part."""
        return tuple(
            Categorical(f"{self.name}_{part}", "integer", separate_missing=self.separate_missing)
            for part in self.parts
        )


@dataclasses.dataclass(frozen=True)
class Vector:
    """A column of vectors made elsewhere, as embeddings of a text or a picture.

    A cell is a list of numbers in Parquet and in tables in memory, or text with separators. Every
    vector has ``size`` finite numbers, which are taken as they are, in float32; a missing one is
    all zeros.

    It is one dense field of the model: a matrix, which is learnt, projects the ``size`` numbers to
    the length D of an embedding, while the vectors themselves stay as they are.

    Attributes:
      name: Column name.
      size: Numbers of a vector.
      separator: Text between them.

    Raises:
      UserError: a size or a separator that cannot be.
    """

    name: str
    size: int
    separator: str = "|"

    # It has no ids, in the terms of ``Categorical``, no slots, and ``size`` numbers.
    slots: ClassVar[int] = 0
    pooling: ClassVar[str] = "sum"
    has_values: ClassVar[bool] = False
    dtype: ClassVar[CategoricalType] = "id"
    hash_buckets: ClassVar[None] = None
    shares_with: ClassVar[None] = None
    has_vocabulary: ClassVar[bool] = False
    separate_missing: ClassVar[bool] = False

    def __post_init__(self):
        check_number(self, "size", 1)
        if self.separator == "":
            raise UserError(f"column {self.name!r}: a separator must be a text of one or more")

    @property
    def numbers(self) -> int:
        """Numbers of the dense field."""
        return self.size


@dataclasses.dataclass(frozen=True)
class Label:
    """A column to predict, 0 or 1; in a schema with several labels a row may lack some of them.

    Attributes:
      name: Column name.
      values: The two texts that stand for 0 and for 1, where the column does not say 0 and 1:
        ``("no", "yes")``.
      positive: The one text that stands for 1, where every other stands for 0.
      rank: Place among several labels: the one of least rank comes first, and of equal ones the
        one that stands first in the file.

    Raises:
      UserError: ``values`` is not two different texts, or there are ``values`` and ``positive``.
    """

    name: str
    values: tuple[str, str] | None = None
    positive: str | None = None
    rank: int = 0

    def __post_init__(self):
        if self.values is not None and self.values[0] == self.values[1]:
            raise UserError(f"column {self.name!r}: values={self.values} must be two texts")
        if self.positive is not None and (self.values is not None or not self.positive.strip()):
            raise UserError(
                f"column {self.name!r}: positive={self.positive!r} must be a text, and without "
                "values beside it"
            )


@dataclasses.dataclass(frozen=True)
class Weight:
    """A column of weights: how much each row counts, in the training loss and in all metrics.

    Weights are finite and 0 or more; a row without one is a bad row.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Group:
    """A column that says which rows belong together, as a user's: for GAUC, and no feature.

    Where the groups are a feature as well, they are a ``Categorical`` with ``group``. Rows without
    a value are in no group.

    Attributes:
      name: Column name.
      dtype: As in ``Categorical``.
    """

    name: str
    dtype: Literal["string", "integer"] = "string"


@dataclasses.dataclass(frozen=True)
class Ignored:
    """A column that stands in the file and is not read."""

    name: str


Column: TypeAlias = (
    Categorical
    | MultiValued
    | History
    | Numeric
    | Timestamp
    | Vector
    | Label
    | Weight
    | Group
    | Ignored
)
Field: TypeAlias = Categorical | MultiValued | Numeric | Vector
# What has ids of values, one or several in a row.
Category: TypeAlias = Categorical | MultiValued
