"""Cross products of columns."""

import dataclasses

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cross:
    """A cross-product feature: each combination of the columns' values in a row is a category.

    phi_k(x) = prod_i x_i^{c_ki}, c_ki in {0, 1}: feature k is 1 if all of its parts are 1. Each
    feature of a cross combines one value of each of its columns.

    Deviation: the paper gives each conjunction its own weight; here conjunctions are hashed into
    buckets, and those in the same bucket share a weight.

    Source: Cheng et al. 2016, Wide & Deep, Eq. 1 (arXiv 1606.07792).

    Attributes:
      columns: Two or more columns that are encoded as categories, in any order.
      buckets: Number of ids for the conjunctions, below 2^31; id 0, for unseen and missing values,
        is extra.

    Raises:
      UserError: there are fewer than two columns, or duplicates, or ``buckets`` is out of range.
    """

    columns: tuple[str, ...]
    buckets: int = 100_000

    def __post_init__(self):
        if len(self.columns) < 2:
            raise UserError(f"cross {self.name!r} needs two columns or more")
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise UserError(f"cross {self.name!r} has column {column!r} twice")
        if not 1 <= self.buckets < 2**31:
            raise UserError(f"cross {self.name!r}: buckets={self.buckets} must be 1 to 2^31 - 1")

    @property
    def name(self) -> str:
        """The name of the cross in messages and reports."""
        return " x ".join(self.columns)
