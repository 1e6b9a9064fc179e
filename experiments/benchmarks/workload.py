"""The workload that every system of the benchmark trains on, and the line that each reports.

NumPy alone, so that our environment and that of the peers can both import it, and both read the
same ids and labels.

Ids follow a truncated Zipf law in each field: the row of rank k = 1, 2, ... is drawn with
probability proportional to k^-1.05, as the skew of click logs goes. Each field then moves ranks to
rows by its own affine bijection, rank -> (a·rank + b) mod rows with gcd(a, rows) = 1: hot rows lie
scattered over the table as they do in a real vocabulary, and no permutation has to be stored.
"""

import json
import math
import resource
import sys

import numpy as np

FIELDS = 39
EMBED_DIM = 16
MLP_DIMS = (400, 400, 400)
BATCH = 4096
# The name of a system whose products are in bfloat16 ends like this.
BFLOAT16 = "_bf16"

_ZIPF_EXPONENT = 1.05
_CLICK_RATE = 0.25


def field_rows(rows: int) -> int:
    """Rows of each field in a table of about ``rows`` rows; the table has FIELDS times as many.

    Raises:
        ValueError: ``rows`` leaves a field without a row.
    """
    if rows < FIELDS:
        raise ValueError(f"a table of {rows} rows leaves some of {FIELDS} fields without a row")
    return rows // FIELDS


def _affine_bijections(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A factor coprime with ``rows`` and a shift below ``rows``, for each field."""
    factors = np.empty(FIELDS, np.int64)
    for field in range(FIELDS):
        factors[field] = rng.integers(1, rows + 1)
        while math.gcd(int(factors[field]), rows) != 1:
            factors[field] = rng.integers(1, rows + 1)
    return factors, rng.integers(0, rows, FIELDS)


def batches(
    rows: int, count: int, batch: int = BATCH, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draws ``count`` batches; the first of them are the same however many are drawn.

    Args:
        rows: rows of the whole table, about; see ``field_rows``.
        count: how many batches.
        batch: examples in each.
        seed: fixes both where the hot rows of a field lie and what is drawn.

    Returns:
        Ids ``[batch, FIELDS]`` int32, local to each field, in ``[0, field_rows(rows))``; and labels
        ``[batch]`` float32 in {0, 1}, clicked with probability 0.25 whatever the ids.
    """
    per_field = field_rows(rows)
    rng = np.random.default_rng(seed)
    factors, shifts = _affine_bijections(per_field, rng)
    cumulative = np.cumsum(np.arange(1, per_field + 1, dtype=np.float64) ** -_ZIPF_EXPONENT)
    # Divided by its own last value, so that it ends at exactly 1 and no draw in [0, 1) passes it.
    cumulative /= cumulative[-1]
    ids, labels = [], []
    for _ in range(count):
        ranks = np.searchsorted(cumulative, rng.random((batch, FIELDS)), side="right")
        # In int64: factor times rank passes 2^31 from some 46,000 rows in a field on.
        ids.append(((ranks * factors + shifts) % per_field).astype(np.int32))
        labels.append((rng.random(batch) < _CLICK_RATE).astype(np.float32))
    return ids, labels


def report(step_seconds: list[float], **extra: object) -> None:
    """Prints one line of JSON: the seconds of each step, the peak memory, and ``extra``.

    ``peak_rss_bytes`` is the most memory that the process ever held, in bytes of RAM.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    peak *= 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"step_seconds": step_seconds, "peak_rss_bytes": peak, **extra}), flush=True)
