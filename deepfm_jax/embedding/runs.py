"""Sums over the runs of a sorted array, which are its sequences of equal entries.

A GPU adds values scattered to equal places by atomic additions, whose order changes from call to
call, and XLA of jaxlib 0.10.2 to 0.11.0 compiles these to compare-and-swap loops that are hundreds
of times slower (https://github.com/jax-ml/jax/issues/38806). Here a GPU instead adds along the runs
by a segmented scan, a tree of additions that is the same at every call and scatters nothing. Other
platforms scatter the sums along sorted places, which a CPU does in one pass and a TPU without
another sort.

The choice is made at lowering, by the platform that a program is compiled for.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deepfm_jax.typing import PyTree

RowIds: TypeAlias = Int[Array, "occurrences"]
Places: TypeAlias = Int[Array, "occurrences"]
Starts: TypeAlias = Bool[Array, "occurrences"]


def sort_by_row(row_ids: RowIds) -> tuple[RowIds, Int[Array, "occurrences"]]:
    """The rows read, ascending, and the position of each, in stable order."""
    positions = jnp.arange(row_ids.shape[0], dtype=jnp.int32)
    # Two keys give the order of a stable sort, which would need a third array.
    ordered, order = jax.lax.sort((row_ids, positions), num_keys=2, is_stable=False)
    return ordered, order


def run_starts(ordered: Int[Array, "occurrences"]) -> Starts:
    """A mask of the entries of a sorted array that begin a run, [N]."""
    return jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])


def sum_runs(values: PyTree, places: Places) -> PyTree:
    """The sum of each run, at its place.

    Args:
      values: Pytree of arrays [N, ...] of floats.
      places: Index of each entry's run, [N]; starts at 0 and increases by 1 at each run.

    Returns:
      Pytree of [N, ...]. The sum of run p is at index p, and zeros follow the last run. A NaN stays
      in its own run.
    """
    return jax.lax.platform_dependent(
        values, places, cuda=sum_runs_by_scan, rocm=sum_runs_by_scan, default=sum_runs_by_scatter
    )


def sum_runs_by_scatter(values: PyTree, places: Places) -> PyTree:
    """``sum_runs`` in one pass: each sum is taken in the order of the entries."""

    def total(value):
        return jnp.zeros_like(value).at[places].add(value, indices_are_sorted=True)

    return jax.tree.map(total, values)


def sum_runs_by_scan(values: PyTree, places: Places) -> PyTree:
    """``sum_runs`` by a segmented scan of log2(N) levels.

    The error of a run's sum is at most 2 ceil(log2 N) units of rounding of the sum of the entries'
    magnitudes. It does not depend on other runs, as sums of runs are never differences of longer
    sums.

    Source: Blelloch 1990, "Prefix sums and their applications", sec. 1.5 (segmented scans).
    """
    count = len(places)
    starts = run_starts(places)
    totals = _scan_runs(values, starts)
    ends = jnp.concatenate([starts[1:], jnp.ones(1, bool)])
    positions = jnp.arange(count, dtype=jnp.int32)
    end_of_run = jnp.full(count, count, jnp.int32)
    end_of_run = end_of_run.at[jnp.where(ends, places, count)].set(
        positions, mode="drop", unique_indices=True
    )

    def at_ends(total):
        return total.at[end_of_run].get(mode="fill", fill_value=0, indices_are_sorted=True)

    return jax.tree.map(at_ends, totals)


def _scan_runs(values: PyTree, starts: Starts) -> PyTree:
    """At each entry, the sum of its run up to and including the entry."""

    def combine(left, right):
        (sums, started), (following, starts_run) = left, right

        def joined(total, value):
            is_start = starts_run.reshape(-1, *(1,) * (value.ndim - 1))
            return jnp.where(is_start, value, total + value)

        return jax.tree.map(joined, sums, following), started | starts_run

    return jax.lax.associative_scan(combine, (values, starts))[0]


def spread_over_runs(values: Float[Array, "occurrences *dim"], starts: Starts) -> Array:
    """At each entry, the value at the start of its run: the transpose of a sum over runs.

    Both this and its gradient consist of selections along a scan, without scattered additions.
    """

    def combine(left, right):
        (value, started), (following, starts_run) = left, right
        is_start = starts_run.reshape(-1, *(1,) * (value.ndim - 1))
        return jnp.where(is_start, following, value), started | starts_run

    return jax.lax.associative_scan(combine, (values, starts))[0]
