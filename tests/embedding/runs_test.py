"""Sums over runs, and the lookup whose gradient they are, against loops in float64."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.embedding.gather_scatter import read, read_runs
from deepfm_jax.embedding.runs import (
    run_starts,
    sort_by_row,
    spread_over_runs,
    sum_runs,
    sum_runs_by_scan,
    sum_runs_by_scatter,
)

EPSILON = 2.0**-24  # the unit of rounding of float32
ENTRIES = 61  # One size, so that each program is compiled once.
WAYS = [jax.jit(way) for way in (sum_runs, sum_runs_by_scan, sum_runs_by_scatter)]
by_scan = WAYS[1]
every_way = pytest.mark.parametrize("sums", WAYS, ids=["chosen", "scan", "scatter"])
lengths_of_runs = st.lists(st.integers(1, 40), max_size=60)


def places_of(lengths, entries=ENTRIES):
    """Runs of these lengths, the last one cut or filled up."""
    lengths = [*lengths, entries]
    return np.repeat(np.arange(len(lengths)), lengths)[:entries].astype(np.int32)


def by_loop(values, places):
    """Sums of runs in float64, and the sums of their magnitudes."""
    totals, magnitudes = np.zeros(values.shape), np.zeros(values.shape)
    for value, place in zip(values.astype(np.float64), places, strict=True):
        totals[place] += value
        magnitudes[place] += np.abs(value)
    return totals, magnitudes


@every_way
@settings(max_examples=30, deadline=None)
@given(lengths=lengths_of_runs, tail=st.sampled_from([(), (1,), (3, 2)]), seed=st.integers(0, 99))
def test_sums_of_runs_are_those_of_a_loop(sums, lengths, tail, seed):
    places = places_of(lengths)
    values = np.random.default_rng(seed).normal(size=(len(places), *tail)).astype(np.float32)
    found = sums({"a": jnp.asarray(values)}, jnp.asarray(places))["a"]
    assert found.dtype == jnp.float32
    chex.assert_trees_all_close(np.float64(found), by_loop(values, places)[0], rtol=0, atol=1e-5)
    assert not np.asarray(found)[places[-1] + 1 :].any()


@settings(max_examples=30, deadline=None)
@given(lengths=lengths_of_runs, seed=st.integers(0, 99))
def test_the_scan_keeps_to_its_bound_beside_runs_of_any_size(lengths, seed):
    rng = np.random.default_rng(seed)
    places = places_of(lengths)
    # From 1e-20 to 1e20: differences of cumulative sums would leave nothing of the small runs.
    scale = 10.0 ** rng.integers(-20, 21, ENTRIES)[places]
    values = (rng.normal(size=(len(places), 2)) * scale[:, None]).astype(np.float32)
    found = np.asarray(by_scan(jnp.asarray(values), jnp.asarray(places)), np.float64)
    totals, magnitudes = by_loop(values, places)
    levels = 2 * math.ceil(math.log2(ENTRIES))
    assert (np.abs(found - totals) <= levels * EPSILON * magnitudes).all()


def test_a_run_of_a_million_entries_is_summed_more_closely_than_in_their_order():
    values = np.random.default_rng(0).uniform(0, 1, 2**20).astype(np.float32)
    places = np.zeros(2**20, np.int32)
    total = float(by_scan(jnp.asarray(values), jnp.asarray(places))[0])
    assert abs(total - values.astype(np.float64).sum()) <= 40 * EPSILON * total


@every_way
def test_what_is_not_finite_stays_in_its_run(sums):
    values = jnp.asarray([1.0, np.nan, 2.0, 3.0, np.inf, -np.inf, 5.0])
    places = jnp.asarray([0, 1, 1, 2, 3, 3, 4], jnp.int32)
    expected = np.array([1.0, np.nan, 3.0, np.nan, 5.0, 0.0, 0.0])
    chex.assert_trees_all_equal(sums(values, places), expected)


def test_the_scan_gives_the_same_bits_at_every_call():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(ENTRIES, 4)).astype(np.float32))
    places = jnp.asarray(places_of([33, 20]))
    first, second = (np.asarray(by_scan(values, places)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_spreading_over_runs_is_the_transpose_of_summing_them():
    rng = np.random.default_rng(0)
    places = jnp.asarray(places_of([3, 1, 5], 11))
    starts = run_starts(places)
    at_starts = jnp.where(starts[:, None], rng.normal(size=(11, 2)), 0.0)
    cotangent = jnp.asarray(rng.normal(size=(11, 2)), jnp.float32)
    spread, transpose = jax.vjp(lambda values: spread_over_runs(values, starts), at_starts)
    chex.assert_trees_all_equal(spread, at_starts[starts][places])
    expected = sum_runs_by_scatter(cotangent, places)[places] * starts[:, None]
    chex.assert_trees_all_close(transpose(cotangent)[0], expected, atol=1e-6)


def test_the_sort_is_stable():
    ordered, order = sort_by_row(jnp.asarray([4, 2, 4, 2, 0], jnp.int32))
    assert ordered.tolist() == [0, 2, 2, 4, 4]
    assert order.tolist() == [4, 1, 3, 0, 2]


READINGS = 37


@functools.partial(jax.jit, static_argnames="look_up")
def derivatives(look_up, array, row_ids, cotangent):
    """A lookup, its tangent along the array itself, and its gradient."""
    rows, tangent = jax.jvp(lambda array: look_up(array, row_ids), (array,), (array,))
    (gradient,) = jax.vjp(lambda array: look_up(array, row_ids), array)[1](cotangent)
    return rows, tangent, gradient


@pytest.mark.parametrize("dim", [(), (3,)])
@pytest.mark.parametrize("look_up", [read, read_runs])
@settings(max_examples=30, deadline=None)
@given(row_ids=st.lists(st.integers(0, 9), min_size=READINGS, max_size=READINGS))
def test_a_lookup_has_the_value_and_both_derivatives_of_a_loop(look_up, dim, row_ids):
    rng = np.random.default_rng(row_ids)
    array = rng.normal(size=(8, *dim)).astype(np.float32)  # 8 and 9 are out of range
    cotangent = rng.normal(size=(READINGS, *dim)).astype(np.float32)
    ids = jnp.asarray(row_ids, jnp.int32)
    rows, tangent, gradient = derivatives(look_up, jnp.asarray(array), ids, cotangent)
    nothing = np.zeros(dim)
    expected = [array[row] if row < 8 else nothing for row in row_ids]
    chex.assert_trees_all_close(np.asarray(tangent), np.array(expected, np.float32), atol=0)
    out_of_range = np.nan if look_up is read else 0.0
    expected = [array[row] if row < 8 else nothing + out_of_range for row in row_ids]
    chex.assert_trees_all_equal(rows, np.array(expected, np.float32))
    by_row = np.zeros(array.shape)
    for row, value in zip(row_ids, cotangent.astype(np.float64), strict=True):
        if row < 8:
            by_row[row] += value
    chex.assert_trees_all_close(np.float64(gradient), by_row, rtol=0, atol=1e-5)


@pytest.mark.parametrize("look_up", [read, read_runs])
def test_a_lookup_can_be_mapped_over_tables_and_differentiated_twice(look_up):
    arrays = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32))
    ids = jnp.asarray([[1, 4], [1, 0]], jnp.int32)

    def loss(array):
        return jnp.sum(look_up(array, ids) ** 3)

    gradients = jax.vmap(jax.grad(loss))(arrays)
    counts = jnp.asarray([1.0, 2.0, 0.0, 0.0, 1.0])[None, :, None]
    chex.assert_trees_all_close(gradients, 3 * counts * arrays**2, atol=1e-5)
    curved = jax.jvp(jax.grad(loss), (arrays[0],), (jnp.ones((5, 3)),))[1]
    chex.assert_trees_all_close(curved, (6 * counts * arrays)[0], atol=1e-5)
