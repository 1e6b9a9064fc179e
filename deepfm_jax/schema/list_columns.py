"""Columns whose cells hold several values of one vocabulary: sets, weighted ones, and histories."""

import dataclasses
from typing import ClassVar

from deepfm_jax.errors import UserError
from deepfm_jax.schema.column_options import (
    CategoricalType,
    check_coding,
    check_number,
    has_vocabulary,
)


@dataclasses.dataclass(frozen=True)
class MultiValued:
    """A column whose cells hold several values, as the genres of a movie; one field of the model.

    A cell is text (``Comedy|Drama``), or a list in Parquet and in tables in memory; the elements of
    a list are what stands between separators in text. An element without a value (``a||b``, a null
    of a list) is dropped. A value that is there twice counts twice. A cell without any value is a
    missing one, and stands for one value with the id of missing values.

    A row has ``max_length`` slots of the field, each an id and a value, filled from the left; those
    that remain are padding (id -1, value 0). A longer cell keeps its first ``max_length`` values,
    in the vocabulary's counts too; ``prepare`` tells how many cells are longer.

    Attributes:
      name: Column name.
      dtype: Of the values, as in ``Categorical``.
      separator: Text between values.
      max_length: Most values of a row. Each is a slot in every row, on disk and in a batch.
      combiner: How the model pools the vectors v_k of a row's values by their weights w_k (1
        without ``weight_separator``): ``"sum"``: sum_k w_k v_k; ``"mean"``: that sum divided by
        sum_k w_k; ``"sqrtn"``: divided by sqrt(sum_k w_k^2). The sums are over the values kept,
        those without an id of their own included. Another name is that of an input encoder (see
        ``inputs.ENCODERS``).
      weight_separator: Text between a value and its weight, as in ``Comedy:0.5|Drama:2``; the last
        one of an element, so a value may hold it. Every value must have a weight then, a finite
        number of 0 or more; one of 0 is dropped. In a table the elements of a list may instead be
        pairs of a value and a weight (a list of structs, or a map). None: no weights.
      min_count: As in ``Categorical``, of elements.
      separate_missing: As in ``Categorical``.
      max_size: As in ``Categorical``.
      hash_buckets: As in ``Categorical``.
      size: As in ``Categorical``.
      shares_with: As in ``Categorical``.

    Raises:
      UserError: an option that does not exist, is out of range, or does not go with another.
    """

    name: str
    dtype: CategoricalType = "string"
    separator: str = "|"
    max_length: int = 20
    combiner: str = "mean"
    weight_separator: str | None = None
    min_count: int = 1
    separate_missing: bool = False
    max_size: int | None = None
    hash_buckets: int | None = None
    size: int | None = None
    shares_with: str | None = None

    numbers: ClassVar[int] = 0
    has_values: ClassVar[bool] = True

    def __post_init__(self):
        check_coding(self)
        check_number(self, "max_length", 1)
        if self.separator == "" or self.weight_separator == "":
            raise UserError(f"column {self.name!r}: a separator must be a text of one or more")
        if self.separator == self.weight_separator:
            raise UserError(
                f"column {self.name!r}: separator and weight_separator are both {self.separator!r}"
            )

    @property
    def slots(self) -> int:
        """Slots of the field in every row."""
        return self.max_length

    @property
    def pooling(self) -> str:
        """How the slots become one vector."""
        return self.combiner

    @property
    def has_vocabulary(self) -> bool:
        """Whether ids are given to the column's own training values."""
        return has_vocabulary(self)

    @property
    def keeps_last(self) -> bool:
        """Whether a cell that is too long keeps its last values, and not its first."""
        return False


@dataclasses.dataclass(frozen=True)
class History(MultiValued):
    """A column of what came before, oldest first, as the items that a user clicked on.

    As ``MultiValued``, but for a cell that is too long: it keeps its *last* ``max_length`` values,
    the newest, in their order. With ``shares_with`` naming the column of the item in question, an
    item has one embedding in both.
    """

    @property
    def keeps_last(self) -> bool:
        return True
