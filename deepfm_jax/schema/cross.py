"""Cross products of columns."""

import dataclasses

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cross:
    """A cross-product feature: which values stand together in a row, as a category of its own.

    phi_k(x) = prod_i x_i^{c_ki}, c_ki in {0, 1}: feature k is 1 where all of its parts are. The
    features of one cross take one value of each of its columns.

    Deviation: the paper gives each conjunction a weight of its own; here they are hashed into
    buckets, and the conjunctions of one bucket share it.

    Source: Cheng et al. 2016, Wide & Deep, Eq. 1 (arXiv 1606.07792).

    Attributes:
      columns: Two or more columns that are read as categories. Their order does not matter.
      buckets: Ids of the conjunctions, below 2^31; id 0, for what is unseen or missing, is one
        more.

    Raises:
      UserError: fewer than two columns, one of them twice, or a number of buckets out of range.
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
        """What it is called for people."""
        return " x ".join(self.columns)
