"""Checks the results of the device: ``python -m experiments.benchmarks.gpu_checks``.

A part of ``gpu_session``. Each check reports the largest difference that it found and the largest
that it allows; a check that raises fails, and the next one runs. Models and sums are checked here,
training in ``gpu_training_checks``. The references are those of the tests: float64 loops of the
papers' equations (``tests/references.py``) and PyTorch's DeepFM (``tests/golden``), so this needs a
clone. Products are in full float32, except in the check that measures the effect of the default
precision. Prints a line of JSON for each check.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepfm_jax import DeepFM
from deepfm_jax.embedding import by_slot_map, create_scratch, sum_equal_rows, sum_sorted
from deepfm_jax.embedding.gather_scatter import read
from deepfm_jax.heads import OneTask
from experiments.benchmarks import gpu_training_checks, gpu_workload
from experiments.benchmarks.gpu_sizes import FULL, SMALL, Sizes
from experiments.benchmarks.gpu_workload import emit
from tests import model_variants, references

_GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden" / "deepfm.npz"


@dataclasses.dataclass(frozen=True)
class Found:
    """The finding of a check.

    Attributes:
      difference: Largest difference, absolute unless the note says otherwise.
      allowed: Largest difference that passes; None if the difference is only reported.
      note: What was compared.
    """

    difference: float
    allowed: float | None
    note: str


def main() -> None:
    """Runs all checks until the time is up."""
    flags = gpu_workload.worker_flags(__doc__)
    sizes = SMALL if flags.small else FULL
    checks: dict[str, Callable[[], Found]] = {
        "golden": golden,
        "sums by row": lambda: sums_by_row(sizes),
        "gradient of the lookup": lambda: lookup_gradient(sizes),
        **{
            name: lambda check=check: Found(*check())
            for name, check in gpu_training_checks.CHECKS.items()
        },
        "default precision": lambda: default_precision(sizes),
        **{
            f"model {variant}": lambda variant=variant: model_variant(variant)
            for variant in model_variants.VARIANTS
        },
    }
    for name in gpu_workload.within(flags.seconds, list(checks)):
        emit(part="check", name=name, **outcome(checks[name]))


def outcome(check: Callable[[], Found]) -> dict[str, Any]:
    """Runs a check and reports its finding and whether it passed; an exception is a failure."""
    try:
        with jax.default_matmul_precision("highest"):
            found = check()
    except Exception as error:  # A failing check must not prevent the others from running.
        lines = str(error).strip().splitlines() or [""]
        return {"passed": False, "note": f"{type(error).__name__}: {lines[0]}"[:300]}
    # NaN is not within any bound.
    passed = None if found.allowed is None else bool(found.difference <= found.allowed)
    return {**dataclasses.asdict(found), "passed": passed}


def cpu() -> Any:
    """The host's processor as a JAX device."""
    return jax.devices("cpu")[0]


def largest(ours: Any, theirs: Any) -> float:
    """The largest absolute difference of two pytrees of arrays."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0.0))
        for a, b in pairs
    )


def model_variant(variant: str) -> Found:
    """Compares a model's logits, and its gradient along one direction, with its reference."""
    with jax.default_device(cpu()):  # Many small programs that need not run on the device.
        model, params, ids, values = model_variants.drawn(variant)
    labels = np.array([0, 1, 1, 0, 1, 0], np.float32)

    @jax.jit
    def evaluate(params, ids, values, labels):
        def loss(params):
            logits: Any = model.apply({"params": params}, ids, values)
            return jnp.mean(jax.nn.softplus(logits) - labels * logits), logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return logits, gradient

    arguments = (params, ids, values, labels)
    logits, gradient = evaluate(*jax.device_put(arguments, jax.devices()[0]))
    on_cpu = evaluate(*jax.device_put(arguments, cpu()))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = model_variants.reference(variant, params, ids, values)
    direction = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape), params
    )

    def loss_along(step):
        moved = jax.tree.map(lambda leaf, way: leaf + step * way, params, direction)
        return references.logloss(model_variants.reference(variant, moved, ids, values), labels)

    slope = (loss_along(1e-6) - loss_along(-1e-6)) / 2e-6
    products = jax.tree.map(
        lambda way, grad: np.sum(way * np.asarray(grad, np.float64)), direction, gradient
    )
    found = max(
        largest(logits, expected) / (1 + np.abs(expected).max()),
        abs(sum(jax.tree.leaves(products)) - slope) / (1 + abs(slope)),
    )
    differs = largest((logits, gradient), on_cpu)
    return Found(found, 2e-5, f"relative, to float64; from the CPU's it differs by {differs:.1e}")


def golden() -> Found:
    """DeepFM with PyTorch's weights gives PyTorch's probabilities, loss and gradients."""
    from tests.golden.deepfm_test import as_params

    arrays = dict(np.load(_GOLDEN))
    model = DeepFM(
        field_dims=tuple(arrays["field_dims"].tolist()),
        embed_dim=arrays["weight/embedding.weight"].shape[1],
        mlp_dims=tuple(arrays["mlp_dims"].tolist()),
    )
    ids = jnp.asarray(arrays["ids"], jnp.int32)
    labels = jnp.asarray(arrays["labels"], jnp.float32)[:, None]
    head = OneTask()

    def loss_fn(params):
        logits: Any = model.apply({"params": params}, ids)
        logits = logits[:, None]
        return head.loss(logits, labels, jnp.ones(len(ids))), logits

    evaluate = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, logits), gradient = evaluate(as_params(arrays, "weight"))
    ours = (head.probabilities(logits)[:, 0], loss, gradient)
    theirs = (arrays["probabilities"], arrays["loss"], as_params(arrays, "gradient"))
    return Found(largest(ours, theirs), 2e-6, "probabilities, loss and gradients of PyTorch")


def sums_by_row(sizes: Sizes) -> Found:
    """Compares both ways to sum row gradients with float64, relative to sums of magnitudes."""
    rng = np.random.default_rng(0)
    rows = sizes.sums // 4
    row_ids = np.minimum(rng.zipf(1.2, sizes.sums) - 1, rows).astype(np.int32)
    grads = rng.normal(size=(sizes.sums, 4)).astype(np.float32)
    grads[row_ids == rows] = np.nan  # belongs to no row

    def by_map(row_ids, grads):
        _, representatives = by_slot_map(create_scratch(rows), row_ids)
        return sum_equal_rows(row_ids, representatives, grads, rows)

    expected, magnitudes = np.zeros((rows + 1, 4)), np.zeros((rows + 1, 4))
    np.add.at(expected, row_ids, grads.astype(np.float64))
    np.add.at(magnitudes, row_ids, np.abs(grads))
    worst = 0.0
    for way in (by_map, lambda row_ids, grads: sum_sorted(row_ids, grads, rows)):
        touched = jax.jit(way)(row_ids, grads)
        count = int(touched.count)
        rows_found = np.asarray(touched.row_ids)[:count]
        assert sorted(rows_found) == sorted(set(row_ids.tolist()) - {rows}), "other rows"
        off = np.abs(np.asarray(touched.grads, np.float64)[:count] - expected[rows_found])
        worst = max(worst, float(np.max(off / magnitudes[rows_found])))
    # Additions in an order left to chance stay far within this, but have no smaller bound.
    return Found(worst, 1e-5, "relative to the sums of magnitudes, by sort and by slot map")


def lookup_gradient(sizes: Sizes) -> Found:
    """Checks the dense gradient of a lookup that reads few rows many times."""
    rng = np.random.default_rng(0)
    row_ids = np.minimum(rng.zipf(1.2, sizes.sums // 8) - 1, 99).astype(np.int32)
    weights = rng.uniform(size=len(row_ids)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda table: jnp.sum(weights * read(table, row_ids))))
    found = gradient(jnp.zeros(100))
    expected = np.zeros(100)
    np.add.at(expected, row_ids, weights.astype(np.float64))
    off = np.abs(np.asarray(found, np.float64) - expected) / np.maximum(expected, 1)
    return Found(float(off.max()), 1e-5, "relative, to float64")


def default_precision(sizes: Sizes) -> Found:
    """Measures how the device's default precision changes the benchmark's logits."""
    model = gpu_workload.model(sizes.rows[-1], False)
    (batch, *_), _ = gpu_workload.device_batches(sizes.rows[-1], sizes.batches[-1])
    params = jax.jit(model.init)(jax.random.key(0), batch["ids"])

    def logits(precision):
        with jax.default_matmul_precision(precision):
            return jax.jit(lambda params: model.apply(params, batch["ids"]))(params)

    difference = largest(logits("default"), logits("highest"))
    return Found(difference, None, "logits of the benchmark's model, default to full float32")


if __name__ == "__main__":
    main()
