"""How large the parts of the GPU session are, on a GPU and on a CPU; without JAX."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
      rows: Rows of the tables, V of each, the most telling first.
      batches: Examples in a batch, likewise.
      scored: Examples in a batch that is scored.
      product: Side of the square matrices whose product gives the rate of multiplication.
      copied: Bytes of the array whose copy gives the bandwidth.
      sums: Readings of which the sums by row are checked.
      seconds: Least time for which a step is timed.
    """

    rows: tuple[int, ...]
    batches: tuple[int, ...]
    scored: tuple[int, ...]
    product: int
    copied: int
    sums: int
    seconds: float


FULL = Sizes(
    rows=(10**7, 10**6, 10**8),
    batches=(65_536, 4096),
    scored=(1, 16, 256, 4096, 65_536),
    product=8192,
    copied=1 << 30,
    sums=2_000_000,
    seconds=0.4,
)
SMALL = Sizes(
    rows=(3900,),
    batches=(64,),
    scored=(1, 64),
    product=128,
    copied=1 << 20,
    sums=5000,
    seconds=0.0,
)
