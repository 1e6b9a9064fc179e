"""Columns of one category in each cell."""

import dataclasses

from deepfm_jax.cells.categories import CategoricalType
from deepfm_jax.columns.category import Category
from deepfm_jax.columns.column import Target
from deepfm_jax.columns.option_checks import check_coding


@dataclasses.dataclass(frozen=True)
class Categorical(Category):
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
        is of the value alone (see ``coders.hashing``), so it is the same everywhere.
      size: Ids of a column of ids.
      shares_with: Another column, whose ids this one's values have: the vocabulary of that column,
        its *owner*, is fitted on the values of all columns that share it, and they read the same
        rows of the embedding table. The owner's options say how: ``min_count``, ``max_size``,
        ``hash_buckets``, ``separate_missing``. Both must have one ``dtype`` (and ``size``).
      group: Whether the column is the group of GAUC as well (see ``Group``).

    Raises:
      UserError: an option that does not exist, is out of range, or does not go with another.
    """

    dtype: CategoricalType = "string"
    min_count: int = 1
    separate_missing: bool = False
    max_size: int | None = None
    hash_buckets: int | None = None
    size: int | None = None
    shares_with: str | None = None
    group: bool = False

    def __post_init__(self):
        check_coding(self)

    @property
    def target(self) -> Target | None:
        return "group" if self.group else None

    @property
    def is_ordered(self) -> bool:
        return self.dtype != "string"
