"""The workload of every system of the benchmarks, and the line that each reports.

Needs only NumPy, so that both our environment and the peers' can import it and read the same ids
and labels.

Ids follow a truncated Zipf law in each field: the row of rank k = 1, 2, ... is drawn with
probability proportional to k^-1.05, a skew like that of click logs. Each field then maps ranks to
rows by its own affine bijection, rank -> (a·rank + b) mod rows with gcd(a, rows) = 1: hot rows are
scattered over the table as in a real vocabulary, and no permutation has to be stored.
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
# Suffix of the names of systems whose products are in bfloat16.
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
    """Draws ``count`` batches; the first ones do not depend on ``count``.

    Args:
        rows: approximate rows of the whole table; see ``field_rows``.
        count: number of batches.
        batch: examples per batch.
        seed: determines both the positions of a field's hot rows and the draws.

    Returns:
        Ids ``[batch, FIELDS]`` int32, local to each field, in ``[0, field_rows(rows))``; and labels
        ``[batch]`` float32 in {0, 1}, clicked with probability 0.25 whatever the ids.
    """
    per_field = field_rows(rows)
    rng = np.random.default_rng(seed)
    factors, shifts = _affine_bijections(per_field, rng)
    cumulative = np.cumsum(np.arange(1, per_field + 1, dtype=np.float64) ** -_ZIPF_EXPONENT)
    # Divided by its own last value, so that it ends at exactly 1, above all draws in [0, 1).
    cumulative /= cumulative[-1]
    ids, labels = [], []
    for _ in range(count):
        ranks = np.searchsorted(cumulative, rng.random((batch, FIELDS)), side="right")
        # In int64: factor times rank exceeds 2^31 from some 46,000 rows per field on.
        ids.append(((ranks * factors + shifts) % per_field).astype(np.int32))
        labels.append((rng.random(batch) < _CLICK_RATE).astype(np.float32))
    return ids, labels


def report(step_seconds: list[float], **extra: object) -> None:
    """Prints one line of JSON: the seconds of each step, the peak memory, and ``extra``.

    ``peak_rss_bytes`` is the peak resident memory of the process, in bytes.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    peak *= 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"step_seconds": step_seconds, "peak_rss_bytes": peak, **extra}), flush=True)
