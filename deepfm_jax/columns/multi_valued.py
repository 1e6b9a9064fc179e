"""Columns whose cells hold several values of one vocabulary, with or without weights."""

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.categories import CategoricalType
from deepfm_jax.cells.lists import typed_lists
from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.cells.typed import TypedCells
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.coders.list_coding import KeptElements, fill_slots, kept_elements
from deepfm_jax.columns.category import Category
from deepfm_jax.columns.column import FeatureUse
from deepfm_jax.columns.option_checks import check_coding, check_number
from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class MultiValued(Category):
    """A column whose cells hold several values, such as a movie's genres; one field of the model.

    A cell is text with separators (``Comedy|Drama``), or a list in Parquet and in tables in memory.
    Elements without a value (``a||b``, a null in a list) are dropped. Duplicates count twice. A
    cell without any value is a missing cell, and becomes one value with the id of missing values.

    A row has ``max_length`` slots for the field, each an id and a value, filled from the left; the
    remaining slots are padding (id -1, value 0). A longer cell keeps its first ``max_length``
    values, and the vocabulary counts only these; ``prepare`` reports how many cells are longer.

    Attributes:
      name: Column name.
      dtype: Type of the values, as in ``Categorical``.
      separator: Text between values.
      max_length: Most values of a row. Each takes a slot in every row, on disk and in a batch.
      combiner: How the model pools the vectors v_k of a row's values by their weights w_k (1
        without ``weight_separator``): ``"sum"``: sum_k w_k v_k; ``"mean"``: that sum divided by
        sum_k w_k; ``"sqrtn"``: divided by sqrt(sum_k w_k^2). The sums are over all values kept,
        including rare and unseen ones. Any other name is that of an input encoder (see
        ``inputs.ENCODERS``).
      weight_separator: Text between a value and its weight, as in ``Comedy:0.5|Drama:2``. Its last
        occurrence in an element counts, so a value may contain it. Every value then needs a weight,
        a finite number of 0 or more; values of weight 0 are dropped. In a table, the elements of a
        list may instead be pairs of a value and a weight (a list of structs, or a map). None: no
        weights.
      min_count: As in ``Categorical``, counting elements.
      separate_missing: As in ``Categorical``.
      max_size: As in ``Categorical``.
      hash_buckets: As in ``Categorical``.
      size: As in ``Categorical``.
      shares_with: As in ``Categorical``.

    Raises:
      UserError: an option does not exist, is out of range, or conflicts with another.
    """

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

    has_values: ClassVar[bool] = True

    def __post_init__(self):
        check_coding(self)
        check_number(self, "max_length", 1)
        if self.separator == "" or self.weight_separator == "":
            raise UserError(f"column {self.name!r}: a separator must not be empty")
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
    def slot_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}[{place}]" for place in range(self.slots))

    @property
    def feature_use(self) -> FeatureUse:
        return "ids" if self.weight_separator is None else "pairs"

    def type_cells(self, raw: pa.Array, text: TextFormat) -> TypedCells:
        return typed_lists(
            raw,
            text,
            self.type_values,
            separator=self.separator,
            weight_separator=self.weight_separator,
        )

    def counted_values(self, typed: pa.ChunkedArray) -> pa.Array:
        """The values of all cells that are kept; the rest of a longer cell does not count."""
        return self._kept(typed).values

    def encode(
        self,
        typed: pa.ChunkedArray,
        coder: FieldCoder,
        ids: np.ndarray,
        values: np.ndarray | None,
    ) -> int | None:
        assert values is not None  # This field has values, and so does the schema.
        kept = self._kept(typed)
        fill_slots(kept, coder.value_ids, coder.missing_id, ids, values)
        return kept.longer

    def _kept(self, typed: pa.ChunkedArray) -> KeptElements:
        weighted = self.weight_separator is not None
        return kept_elements(typed, self.max_length, weighted=weighted, keep_last=self.keeps_last)
