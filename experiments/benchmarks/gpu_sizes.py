"""Sizes of the GPU session's parts, on a GPU and on a CPU; imports without JAX."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a session.

    Attributes:
      rows: Rows V of each table, the most informative first.
      batches: Examples per batch, likewise.
      scored: Examples per batch when scoring.
      product: Side of the square matrices whose product measures the FLOP rate.
      copied: Bytes of the array whose copy measures the bandwidth.
      sums: Number of lookups in the check of sums by row.
      seconds: Shortest time for which a step is timed.
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
