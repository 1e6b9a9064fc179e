"""Optimizers that touch only the rows of a batch.

A ``RowOptimizer`` is to one array of the table what an optax transformation is to a parameter: a
pair of pure functions. ``init(table)`` creates its slots, arrays whose first axis is the table's
rows. ``update`` changes the touched rows of both, in place if both are donated. Its cost depends on
the batch, never on V, and untouched rows keep every bit.

Each optimizer is written as a rule for gathered rows. It equals the dense optimizer if the latter
leaves a row with zero gradient unchanged (``sgd``, ``adagrad``). ``adam`` is *lazy*: dense Adam
continues to move an untouched row by its momentum and decays its moments; lazy Adam does neither.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from deepfm_jax.embedding.gather_scatter import read, write
from deepfm_jax.embedding.rounding import round_stochastically
from deepfm_jax.typing import PyTree

RowValues: TypeAlias = Float[Array, "occurrences *dim"]

# rule(rate, count, grads, slots, weights) -> (change of the weights, new slots), for gathered rows.
_Rule: TypeAlias = Callable[
    [Float[Array, ""], Int[Array, ""], RowValues, PyTree, RowValues], tuple[RowValues, PyTree]
]


class RowOptimizer(NamedTuple):
    """The pair ``init(table) -> slots`` and ``update(...) -> (table, slots)``.

    ``init`` takes the table in its own dtype. ``update(table, slots, touched, count, scale, key)``
    takes the table as stored (``gather_scatter.to_stored``), its slots and ``RowGradients``, the
    number of steps before this one, a factor on the learning rate, and a random key, which only
    tables in bfloat16 use.
    """

    init: Callable[[Any], PyTree]
    update: Callable[..., tuple[Any, PyTree]]


def sgd(learning_rate: optax.ScalarOrSchedule) -> RowOptimizer:
    """Gradient descent: w <- w - rate g."""

    def rule(rate, count, grads, slots, weights):
        del count, weights
        return -rate * grads, slots

    return _from_rule(learning_rate, lambda table: (), rule)


def adagrad(
    learning_rate: optax.ScalarOrSchedule,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    eps_in_root: bool = True,
) -> RowOptimizer:
    """Elementwise n <- n + g^2; w <- w - rate g / sqrt(n + eps), as in ``optax.adagrad``.

    PyTorch's Adagrad is ``initial_accumulator_value=0, eps=1e-10, eps_in_root=False``. If gradients
    are small, the initial value decides how far a row moves: with g = 1e-3, the default moves it
    about a hundred times less at first.

    Args:
      learning_rate: A number or a schedule.
      initial_accumulator_value: Initial value of n.
      eps: See the formula.
      eps_in_root: False for w <- w - rate g / (sqrt(n) + eps).

    Source: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods", Fig. 1 (diagonal).
    """

    def init(table):
        return jnp.full(table.shape, initial_accumulator_value, jnp.float32)

    def rule(rate, count, grads, slots, weights):
        del count, weights
        total = slots + grads * grads
        if eps_in_root:
            return -rate * grads * jax.lax.rsqrt(total + eps), total
        return -rate * grads / (jnp.sqrt(total) + eps), total

    return _from_rule(learning_rate, init, rule)


def rowwise_adagrad(
    learning_rate: optax.ScalarOrSchedule, initial_accumulator_value: float = 0.0, eps: float = 1e-8
) -> RowOptimizer:
    """Adagrad with one n per row: n <- n + mean_d g_d^2; w <- w - rate g / (sqrt(n) + eps).

    Source: the fused row-wise Adagrad of recommender training (Mudigere et al. 2022, "Software-
      hardware co-design for fast and scalable training of deep learning recommendation models",
      arXiv 2104.05158, sec. 4.1.2).
    """

    def init(table):
        return jnp.full(table.shape[:1], initial_accumulator_value, jnp.float32)

    def rule(rate, count, grads, slots, weights):
        del count, weights
        squares = grads * grads
        total = slots + jnp.mean(squares.reshape(len(squares), -1), axis=1)
        factor = -rate / (jnp.sqrt(total) + eps)
        return grads * factor.reshape(-1, *(1,) * (grads.ndim - 1)), total

    return _from_rule(learning_rate, init, rule)


def adam(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> RowOptimizer:
    """Lazy Adam: Adam's Algorithm 1 on the touched rows; other rows keep their moments.

    m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - rate m^ / (sqrt(v^) + eps), with
    m^ = m / (1 - b1^t) and v^ = v / (1 - b2^t). Here t is the number of steps, not of a row's
    updates. A row touched at every step moves as with ``optax.adam``.

    Source: Kingma and Ba 2015, Algorithm 1 (arXiv 1412.6980).
    """

    def init(table):
        zeros = jnp.zeros(table.shape, jnp.float32)
        return {"m": zeros, "v": jnp.zeros_like(zeros)}

    def rule(rate, count, grads, slots, weights):
        del weights
        m = b1 * slots["m"] + (1 - b1) * grads
        v = b2 * slots["v"] + (1 - b2) * grads * grads
        steps = (count + 1).astype(jnp.float32)
        first, second = 1 - b1**steps, 1 - b2**steps
        return -rate * (m / first) / (jnp.sqrt(v / second) + eps), {"m": m, "v": v}

    return _from_rule(learning_rate, init, rule)


def ftrl(learning_rate: float, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0) -> RowOptimizer:
    """FTRL-Proximal with per-coordinate rates; ``l1`` makes weights exactly 0.

    s = (sqrt(n + g^2) - sqrt(n)) / a; z <- z + g - s w; n <- n + g^2; then w = 0 if |z| <= l1,
    otherwise w = -(z - sign(z) l1) / ((beta + sqrt(n)) / a + l2), where a is the learning rate.

    Deviation: the paper starts z at 0. Here z starts where the closed form gives the initial
    weights, so that the first update does not discard a nonzero initialiser.

    Args:
      learning_rate: The paper's alpha. It must be a number: FTRL decays its own rates, and a
        schedule would move weights that have no gradient.
      beta: beta of the per-coordinate rate a / (beta + sqrt(n)).
      l1: lambda_1.
      l2: lambda_2.

    Source: McMahan et al. 2013, "Ad click prediction: a view from the trenches", Algorithm 1.
    """

    def init(table):
        weights = table.astype(jnp.float32)
        z = -weights * (beta / learning_rate + l2) - jnp.sign(weights) * l1
        return {"n": jnp.zeros_like(z), "z": z}

    def rule(rate, count, grads, slots, weights):
        del count
        total = slots["n"] + grads * grads
        sigma = (jnp.sqrt(total) - jnp.sqrt(slots["n"])) / rate
        z = slots["z"] + grads - sigma * weights
        active = -(z - jnp.sign(z) * l1) / ((beta + jnp.sqrt(total)) / rate + l2)
        return jnp.where(jnp.abs(z) <= l1, 0.0, active) - weights, {"n": total, "z": z}

    return _from_rule(learning_rate, init, rule)


class RowOptimizerKind(NamedTuple):
    """A row optimizer that settings can name.

    Attributes:
      create: ``(learning_rate, **options) -> RowOptimizer``.
      has_penalties: Whether ``create`` takes ``l1`` and ``l2``; otherwise penalties are part of the
        gradient.
      has_own_schedule: Whether the learning rate must be a number.
    """

    create: Callable[..., RowOptimizer]
    has_penalties: bool = False
    has_own_schedule: bool = False


ROW_OPTIMIZERS: dict[str, RowOptimizerKind] = {
    "sgd": RowOptimizerKind(sgd),
    "adagrad": RowOptimizerKind(adagrad),
    "rowwise_adagrad": RowOptimizerKind(rowwise_adagrad),
    "adam": RowOptimizerKind(adam),
    "ftrl": RowOptimizerKind(ftrl, has_penalties=True, has_own_schedule=True),
}


def _from_rule(
    learning_rate: optax.ScalarOrSchedule, init: Callable[[Any], PyTree], rule: _Rule
) -> RowOptimizer:
    """An optimizer that gathers touched rows of table and slots, applies ``rule``, and writes."""

    def update_chunk(table, slots, row_ids, ascending, grads, rate, count, key):
        def written(array, new):
            return write(array, row_ids, new, ascending=ascending)

        # Rows that a rule does not use are never gathered: the compiler removes unused code.
        weights = read(table, row_ids).astype(jnp.float32)
        rows = jax.tree.map(lambda slot: read(slot, row_ids), slots)
        change, rows = rule(rate, count, grads, rows, weights)
        slots = jax.tree.map(written, slots, rows)
        if table.dtype == jnp.uint16:  # Stored bfloat16.
            return written(table, round_stochastically(key, weights + change)), slots
        table = table.at[row_ids].add(
            change, mode="drop", unique_indices=True, indices_are_sorted=ascending
        )
        return table, slots

    def update(table, slots, touched, count, scale, key):
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        rate = scale * jnp.asarray(rate, jnp.float32)
        ascending = touched.ascending
        if touched.chunk == len(touched.row_ids):
            row_ids, grads = touched.row_ids, touched.grads
            return update_chunk(table, slots, row_ids, ascending, grads, rate, count, key)

        def one_chunk(index, arrays):
            row_ids, grads = (
                jax.lax.dynamic_slice_in_dim(array, index * touched.chunk, touched.chunk)
                for array in (touched.row_ids, touched.grads)
            )
            table, slots = arrays
            chunk_key = jax.random.fold_in(key, index)
            return update_chunk(table, slots, row_ids, ascending, grads, rate, count, chunk_key)

        chunks = (touched.count + touched.chunk - 1) // touched.chunk
        return jax.lax.fori_loop(0, chunks, one_chunk, (table, slots))

    return RowOptimizer(init, update)
