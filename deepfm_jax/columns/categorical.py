"""Columns with one category per cell."""

import dataclasses

from deepfm_jax.cells.categories import CategoricalType
from deepfm_jax.columns.category import Category
from deepfm_jax.columns.column import Target
from deepfm_jax.columns.option_checks import check_coding


@dataclasses.dataclass(frozen=True)
class Categorical(Category):
    """A column of string or integer values; each value that is kept gets an id.

    Ids come from a vocabulary of the training values, from a hash (``hash_buckets``), or from the
    column itself (``dtype="id"``).

    Attributes:
      name: Column name.
      dtype: ``"string"`` takes the text of a cell unchanged; ``"integer"`` parses it, so that
        ``007``, ``7`` and ``7.0`` are one value and ``x7`` is a bad row; ``"id"`` takes integers
        from 0 to ``size - 1`` as ids of the field. An integer outside that range is a bad row, not
        an unseen value: the number of ids is known, and a wrong ``size`` would go unnoticed. A
        missing cell gets id 0, which it shares with the column's own 0.
      min_count: Values seen in fewer training rows than this share id 0.
      separate_missing: Give missing cells id 1, separate from the unseen and rare values of id 0.
        Has no effect without a vocabulary, where no value is unseen or rare.
      max_size: Largest number of values that get an id. The most frequent are kept; ties go to the
        smaller value, by number or by the bytes of the text.
      hash_buckets: Hash values into this many ids, 1 to ``hash_buckets``, instead of keeping a
        vocabulary; values in the same bucket share its id. A missing cell has id 0. The hash
        depends only on the value (see ``coders.hashing``), so it is the same everywhere.
      size: Number of ids of a column with ``dtype="id"``.
      shares_with: Another column whose ids this one uses. The vocabulary of that column, the
        *owner*, is fitted on the values of all columns that share it, and they read the same rows
        of the embedding table. The owner sets ``min_count``, ``max_size``, ``hash_buckets`` and
        ``separate_missing``. Both must have the same ``dtype`` (and ``size``).
      group: Whether the column is also the group of GAUC (see ``Group``).

    Raises:
      UserError: an option does not exist, is out of range, or conflicts with another.
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
