"""Row optimizers against optax on dense gradients, and against NumPy loops from the papers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.embedding import (
    ROW_OPTIMIZERS,
    by_slot_map,
    create_scratch,
    from_stored,
    sum_equal_rows,
    to_stored,
)
from deepfm_jax.embedding.row_optimizers import adagrad, adam, ftrl, rowwise_adagrad, sgd

RATE = 0.05


def drawn(rows, reads, dim, steps, seed=0, spread=0.5):
    """A table, and for each step the rows read and a gradient for each reading; rows repeat."""
    rng = np.random.default_rng(seed)
    tail = (dim,) if dim else ()
    table = rng.normal(0, 0.3, (rows, *tail)).astype(np.float32)
    readable = max(1, int(rows * spread))
    ids = rng.integers(0, readable, (steps, reads)).astype(np.int32)
    grads = rng.normal(0, 1, (steps, reads, *tail)).astype(np.float32)
    grads[rng.random((steps, reads)) < 0.1] = 0.0  # what a feature of value 0 sends back
    return table, ids, grads


def run(optimizer, table, ids, grads, scale=1.0, chunk=7):
    """Table and slots after all steps of the sparse road, as NumPy."""

    @jax.jit
    def step(table, slots, scratch, row_ids, grad, count):
        scratch, representatives = by_slot_map(scratch, row_ids)
        touched = sum_equal_rows(row_ids, representatives, grad, len(table), chunk)
        key = jax.random.fold_in(jax.random.key(3), count)
        table, slots = optimizer.update(table, slots, touched, count, scale, key)
        return table, slots, scratch

    table = jnp.asarray(table)
    slots, scratch = optimizer.init(table), create_scratch(len(table))
    table = to_stored(table)
    for count, (row_ids, grad) in enumerate(zip(ids, grads, strict=True)):
        table, slots, scratch = step(table, slots, scratch, row_ids, grad, jnp.asarray(count))
    return np.asarray(from_stored(table)), jax.tree.map(np.asarray, slots)


def run_optax(optimizer, table, ids, grads):
    """The table after dense optax on the scattered sums of the same gradients."""

    @jax.jit
    def step(table, state, row_ids, grad):
        dense = jnp.zeros_like(table).at[row_ids].add(grad)
        updates, state = optimizer.update(dense, state, table)
        return optax.apply_updates(table, updates), state

    table = jnp.asarray(table)
    state = optimizer.init(table)
    for row_ids, grad in zip(ids, grads, strict=True):
        table, state = step(table, state, row_ids, grad)
    return np.asarray(table)


def summed(row_ids, grad):
    """Row -> float64 sum of its gradients, by a loop."""
    sums = {}
    for row, g in zip(row_ids.tolist(), grad.astype(np.float64), strict=True):
        sums[row] = sums.get(row, 0.0) + g
    return sums


PAIRS = {"sgd": (sgd, optax.sgd), "adagrad": (adagrad, optax.adagrad)}


@pytest.mark.parametrize("name", sorted(PAIRS))
@pytest.mark.parametrize("dim", [0, 4])
def test_equals_dense_optax_over_a_hundred_steps(name, dim):
    ours, theirs = PAIRS[name]
    table, ids, grads = drawn(rows=40, reads=64, dim=dim, steps=100)
    found, _ = run(ours(RATE), table, ids, grads)
    chex.assert_trees_all_close(
        found, run_optax(theirs(RATE), table, ids, grads), rtol=1e-7, atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(PAIRS))
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 60),
    reads=st.integers(1, 80),
    dim=st.sampled_from([0, 1, 3]),
    spread=st.floats(0.02, 1.0),
    seed=st.integers(0, 1000),
)
def test_equals_dense_optax_whatever_the_shapes_and_repeats(name, rows, reads, dim, spread, seed):
    ours, theirs = PAIRS[name]
    table, ids, grads = drawn(rows, reads, dim, steps=5, seed=seed, spread=spread)
    found, _ = run(ours(RATE), table, ids, grads)
    chex.assert_trees_all_close(
        found, run_optax(theirs(RATE), table, ids, grads), rtol=1e-7, atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(ROW_OPTIMIZERS))
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_untouched_rows_keep_every_bit(name, dtype):
    table, ids, grads = drawn(rows=50, reads=30, dim=3, steps=10, spread=0.4)
    table = table.astype(dtype)
    optimizer = ROW_OPTIMIZERS[name].create(RATE)
    first_slots = jax.tree.map(np.asarray, optimizer.init(jnp.asarray(table)))
    found, slots = run(optimizer, table, ids, grads)
    untouched = np.setdiff1d(np.arange(50), ids)
    assert untouched.size >= 30
    assert found[untouched].tobytes() == table[untouched].tobytes()
    for new, old in zip(jax.tree.leaves(slots), jax.tree.leaves(first_slots), strict=True):
        assert new[untouched].tobytes() == old[untouched].tobytes()
    touched = np.unique(ids)
    assert (found[touched] != table[touched]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("name", sorted(ROW_OPTIMIZERS))
@pytest.mark.parametrize("chunk", [1, 5, 30, 1000])
def test_rows_do_not_depend_on_how_they_are_chunked(name, chunk):
    table, ids, grads = drawn(rows=50, reads=30, dim=3, steps=4)
    whole, slots = run(ROW_OPTIMIZERS[name].create(RATE), table, ids, grads, chunk=None)
    chunked, same_slots = run(ROW_OPTIMIZERS[name].create(RATE), table, ids, grads, chunk=chunk)
    chex.assert_trees_all_close(chunked, whole, rtol=1e-7, atol=1e-6)
    chex.assert_trees_all_close(same_slots, slots, atol=1e-6)


def test_lazy_adam_is_adam_on_the_rows_of_the_batch():
    table, ids, grads = drawn(rows=20, reads=16, dim=3, steps=50)
    w = table.astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (row_ids, grad) in enumerate(zip(ids, grads, strict=True), start=1):
        for row, g in summed(row_ids, grad).items():
            m[row] = 0.9 * m[row] + 0.1 * g
            v[row] = 0.999 * v[row] + 0.001 * g**2
            m_hat, v_hat = m[row] / (1 - 0.9**t), v[row] / (1 - 0.999**t)
            w[row] -= RATE * m_hat / (np.sqrt(v_hat) + 1e-8)
    found, slots = run(adam(RATE), table, ids, grads)
    chex.assert_trees_all_close(found, w, rtol=1e-7, atol=2e-5)
    chex.assert_trees_all_close(slots["m"], m, rtol=1e-7, atol=1e-5)
    chex.assert_trees_all_close(slots["v"], v, rtol=1e-7, atol=1e-5)


def test_adam_of_rows_touched_at_every_step_is_optax_adam():
    table, ids, grads = drawn(rows=6, reads=12, dim=2, steps=30, spread=1.0)
    ids[:, :6] = np.arange(6)
    found, _ = run(adam(RATE), table, ids, grads)
    chex.assert_trees_all_close(
        found, run_optax(optax.adam(RATE), table, ids, grads), rtol=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("dim", [0, 4])
def test_rowwise_adagrad_keeps_one_number_a_row(dim):
    table, ids, grads = drawn(rows=20, reads=16, dim=dim, steps=50)
    w, n = table.astype(np.float64), np.zeros(20)
    for row_ids, grad in zip(ids, grads, strict=True):
        for row, g in summed(row_ids, grad).items():
            n[row] += np.mean(g**2)
            w[row] -= RATE * g / (np.sqrt(n[row]) + 1e-8)
    found, slots = run(rowwise_adagrad(RATE), table, ids, grads)
    assert slots.shape == (20,)
    chex.assert_trees_all_close(found, w, rtol=1e-7, atol=2e-5)
    chex.assert_trees_all_close(slots, n, rtol=1e-5, atol=0)


@pytest.mark.parametrize("l1", [0.0, 0.8])
def test_ftrl_is_algorithm_1(l1):
    table, ids, grads = drawn(rows=20, reads=8, dim=0, steps=40)
    table[:] = 0.0  # where the paper starts
    beta, l2 = 1.0, 0.3
    w, z, n = np.zeros(20), np.zeros(20), np.zeros(20)
    for row_ids, grad in zip(ids, grads, strict=True):
        for row, g in summed(row_ids, grad).items():
            sigma = (np.sqrt(n[row] + g**2) - np.sqrt(n[row])) / RATE
            z[row] += g - sigma * w[row]
            n[row] += g**2
            if abs(z[row]) <= l1:
                w[row] = 0.0
            else:
                w[row] = -(z[row] - np.sign(z[row]) * l1) / ((beta + np.sqrt(n[row])) / RATE + l2)
    found, _ = run(ftrl(RATE, beta, l1, l2), table, ids, grads)
    chex.assert_trees_all_close(found, w, rtol=1e-7, atol=1e-5)


def test_ftrl_with_a_strong_l1_makes_weights_exactly_zero():
    table, ids, grads = drawn(rows=20, reads=8, dim=0, steps=40)
    table[:] = 0.0
    found, _ = run(ftrl(RATE, l1=5.0), table, ids, grads)
    zero = (found[np.unique(ids)] == 0).mean()
    assert 0.3 < zero < 1
    assert (run(ftrl(RATE), table, ids, grads)[0][np.unique(ids)] != 0).all()


def test_ftrl_starts_from_the_weights_that_it_is_given():
    table, ids, grads = drawn(rows=10, reads=20, dim=3, steps=1, spread=1.0)
    found, _ = run(ftrl(RATE, l1=0.1, l2=0.2), table, ids, grads * 0)
    chex.assert_trees_all_close(found, table, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_rates_follow_the_schedule_and_the_scale(name):
    table, ids, grads = drawn(rows=10, reads=20, dim=2, steps=1)
    plain, _ = run(ROW_OPTIMIZERS[name].create(RATE), table, ids, grads)
    halved, _ = run(ROW_OPTIMIZERS[name].create(RATE), table, ids, grads, scale=0.5)
    scheduled, _ = run(
        ROW_OPTIMIZERS[name].create(lambda count: RATE / (2 + count)), table, ids, grads
    )
    chex.assert_trees_all_close(halved - table, (plain - table) / 2, rtol=1e-7, atol=1e-7)
    chex.assert_trees_all_equal(halved, scheduled)


def test_small_updates_move_a_bfloat16_table_on_average():
    # 1 - 1e-3 rounds to 1 in bfloat16: rounding to nearest would never leave 1.
    table = np.ones((2000, 1), jnp.bfloat16)
    ids = np.tile(np.arange(2000, dtype=np.int32), (20, 1))
    grads = np.full((20, 2000, 1), 1e-3, np.float32)
    found, _ = run(sgd(1.0), table, ids, grads)
    assert found.dtype == jnp.bfloat16
    # 20 steps of -1e-3; the standard error of the mean is about 2e-4.
    assert float(found.astype(np.float64).mean()) == pytest.approx(0.98, abs=1e-3)
