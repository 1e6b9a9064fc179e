import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.embedding import (
    by_slot_map,
    create_scratch,
    needs_scratch,
    read_rows,
    sum_equal_rows,
    sum_sorted,
    table_layout,
    to_stored,
)
from deepfm_jax.features import as_features


def slot_map(row_ids, rows):
    # Whatever an earlier step left in the scratch must not matter.
    scratch = jnp.asarray(np.random.default_rng(9).integers(-9, 10**6, rows), jnp.int32)
    return by_slot_map(scratch, row_ids)[1]


def sum_by_slot_map(row_ids, grads, rows, chunk=None):
    return sum_equal_rows(row_ids, slot_map(row_ids, rows), grads, rows, chunk)


roads = [
    *(functools.partial(sum_by_slot_map, chunk=chunk) for chunk in (None, 1, 7, 500)),
    sum_sorted,
]
every_road = pytest.mark.parametrize(
    "road", roads, ids=["slot_map", "slot_map-1", "slot_map-7", "slot_map-500", "sort"]
)
batches = st.integers(1, 50).flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.integers(0, rows), min_size=1, max_size=200))
)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_each_row_has_one_representative_that_reads_it(batch):
    rows, row_ids = batch
    representatives = np.asarray(slot_map(jnp.asarray(row_ids, jnp.int32), rows))
    chosen = {}
    for row, position in zip(row_ids, representatives, strict=True):
        if row < rows:
            assert row_ids[position] == row
            assert chosen.setdefault(row, position) == position


@every_road
@settings(max_examples=30, deadline=None)
@given(batches, st.sampled_from([(), (1,), (5,)]))
def test_sums_are_those_of_a_loop_and_readings_of_no_row_vanish(road, batch, tail):
    rows, row_ids = batch
    grads = np.random.default_rng(0).normal(size=(len(row_ids), *tail)).astype(np.float32)
    grads[np.asarray(row_ids) == rows] = np.nan
    expected = {}
    for row, grad in zip(row_ids, grads.astype(np.float64), strict=True):
        if row < rows:
            expected[row] = expected.get(row, 0.0) + grad
    ids = jnp.asarray(row_ids, jnp.int32)
    touched = road(ids, {"a": jnp.asarray(grads)}, rows)
    assert touched.ascending == (road is sum_sorted)
    if touched.ascending:
        assert (np.diff(touched.row_ids) >= 0).all()
    assert len(touched.row_ids) % touched.chunk == 0
    assert (np.asarray(touched.row_ids)[int(touched.count) :] == rows).all()
    found = {}
    for row, grad in zip(touched.row_ids.tolist(), np.asarray(touched.grads["a"]), strict=True):
        if row == rows:
            chex.assert_trees_all_equal(grad, np.zeros(tail))
        else:
            assert row not in found
            found[row] = grad
    assert found.keys() == expected.keys()
    for row, grad in found.items():
        chex.assert_trees_all_close(grad, expected[row], rtol=1e-5, atol=1e-5)


def test_rows_above_two_to_the_24_stay_apart():
    rows = 2**24 + 4
    row_ids = jnp.asarray([2**24, 2**24 + 1, 2**24 + 1, 2**24 + 2], jnp.int32)
    grads = jnp.asarray([1.0, 2.0, 4.0, 8.0])
    representatives = by_slot_map(create_scratch(rows), row_ids)[1]
    for touched in (
        sum_equal_rows(row_ids, representatives, grads, rows),
        sum_sorted(row_ids, grads, rows),
    ):
        kept = np.asarray(touched.row_ids) < rows
        sums = dict(
            zip(np.asarray(touched.row_ids)[kept].tolist(),
                np.asarray(touched.grads)[kept].tolist(), strict=True)
        )  # fmt: skip
        assert sums == {2**24: 1.0, 2**24 + 1: 6.0, 2**24 + 2: 8.0}


def test_row_numbers_of_the_largest_table_do_not_overflow():
    largest = 2**31 - 1
    dims = (largest - 10, 7, 3)
    ids = np.array([[largest - 11, 6, 2], [0, 0, 0], [largest, -1, 3]], np.int32)
    layout = table_layout(as_features(dims), 1, True)
    rows = np.asarray(jax.jit(layout.row_ids)(ids)[0]).astype(np.int64)
    assert rows.tolist() == [
        [largest - 11, largest - 4, largest - 1],
        [0, largest - 10, largest - 3],
        # An id out of range reads row V, which is none; V itself still is an int32.
        [largest, largest, largest],
    ]
    row_ids = jnp.asarray(rows.reshape(-1), jnp.int32)
    touched = sum_sorted(row_ids, jnp.ones(9), largest)
    assert sorted(touched.row_ids.tolist()) == sorted(rows[:2].reshape(-1).tolist() + [largest] * 3)


@pytest.mark.parametrize("stored", [jnp.asarray, to_stored])
def test_a_table_is_read_in_float32_and_row_v_is_nan(stored):
    table = {
        "first_order": stored(jnp.arange(4, dtype=jnp.bfloat16)),
        "embedding": stored(jnp.ones((4, 2), jnp.bfloat16)),
    }
    rows = read_rows(table, jnp.asarray([[3, 4]], jnp.int32))
    assert rows["first_order"].dtype == rows["embedding"].dtype == jnp.float32
    chex.assert_trees_all_equal(rows["first_order"], np.array([[3.0, np.nan]]))
    assert np.isnan(rows["embedding"][0, 1]).all()


def test_a_cpu_takes_the_slot_map_and_accelerators_the_sort():
    assert needs_scratch("cpu")
    assert not needs_scratch("gpu")
    assert not needs_scratch("tpu")
