"""Columns of numbers."""

import dataclasses
from typing import ClassVar

import pyarrow as pa

from deepfm_jax.cells.numbers import typed_numbers
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.coders.buckets import Log2FloorCoder, QuantileCoder
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.coders.numbers import LogCoder, StandardCoder
from deepfm_jax.columns.column import Column, FeatureUse, Field
from deepfm_jax.columns.encoding_options import EncodingOptions, NumericTransform, given
from deepfm_jax.columns.option_checks import check_number

_CODERS: dict[NumericTransform, type[FieldCoder]] = {
    "log": LogCoder,
    "standardise": StandardCoder,
    "log2_floor": Log2FloorCoder,
    "quantile": QuantileCoder,
}


@dataclasses.dataclass(frozen=True)
class Numeric(Field):
    """A column of numbers, encoded as one value or as buckets.

    Attributes:
      name: Column name.
      transform: ``"log"``: id 1 with value sign(x) ln(1 + abs(x)); ``"standardise"``: id 1 with
        value (x - mean) / std of the training rows; ``"log2_floor"``: the bucket floor(ln(x)^2) for
        x > 2, else floor(x), as a category (the Criteo winners' transform); ``"quantile"``: the
        index of the training quantile that x falls in, as a category. A missing cell has id 0 and
        value 1, so it has its own embedding.
      buckets: Number of quantile buckets.
      min_count: Buckets of ``"log2_floor"`` seen in fewer training rows than this share id 0.
      separate_missing: For the two bucket transforms, as in ``Categorical``.

    Raises:
      UserError: an option does not exist or is out of range.
    """

    transform: NumericTransform = "log"
    buckets: int = 32
    min_count: int = 1
    separate_missing: bool = False

    is_ordered: ClassVar[bool] = True
    feature_use: ClassVar[FeatureUse] = "value"
    profile: ClassVar[str | None] = "numbers"
    SHOWN_OPTIONS: ClassVar[tuple[str, ...]] = ("transform",)
    # The number of ``log2_floor`` buckets is not limited.
    max_size: ClassVar[None] = None

    def __post_init__(self):
        check_number(self, "buckets", 1)
        check_number(self, "min_count", 1)

    @property
    def is_value_field(self) -> bool:
        """Whether the field has one id, with the transformed number as its value."""
        return self.transform in ("log", "standardise")

    @property
    def has_values(self) -> bool:
        return self.is_value_field

    @property
    def coder(self) -> type[FieldCoder]:
        return _CODERS[self.transform]

    @property
    def cross_fault(self) -> str | None:
        if not self.is_value_field:
            return None
        return (
            f"transform {self.transform!r} makes column {self.name!r} a value, which cannot be "
            "crossed; use buckets, by transform 'quantile' or 'log2_floor'"
        )

    def with_options(self, options: EncodingOptions) -> Column:
        changed = given(
            transform=options.numeric,
            buckets=options.buckets,
            min_count=options.min_count,
            separate_missing=options.separate_missing,
        )
        return dataclasses.replace(self, **changed)

    def type_values(self, cells: pa.Array) -> TypedValues:
        values, bad = typed_numbers(cells)
        return values, bad, "is not a finite number"
