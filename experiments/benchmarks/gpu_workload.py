"""Code shared by the parts of the GPU session: the model, batches on the device, the time floor.

Each part is a separate process that prints one line of JSON for each result (``emit``), so that its
results are kept when its time is up.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepfm_jax import DeepFM
from experiments.benchmarks.gpu_sizes import Sizes
from experiments.benchmarks.workload import EMBED_DIM, FIELDS, MLP_DIMS, batches, field_rows

# JAX's name of each precision of the tower's products; bfloat16 is the model's own setting.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
OPTIMIZERS = {"rowwise_adagrad": 1, "adam": 2 * EMBED_DIM}  # with numbers of state per row
BATCHES = 4  # distinct ones, used in turn


def worker_flags(description: str | None) -> argparse.Namespace:
    """Parses ``--small`` and ``--seconds``, the flags of every part."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--seconds", default=480.0, type=float, help="time for this part")
    return parser.parse_args()


def emit(**record: Any) -> None:
    """Prints a result as one line of JSON."""
    print(json.dumps(record), flush=True)


def model(rows: int, bfloat16: bool) -> DeepFM:
    """The DeepFM of the benchmarks over a table of about ``rows`` rows."""
    return DeepFM(
        (field_rows(rows),) * FIELDS,
        embed_dim=EMBED_DIM,
        mlp_dims=MLP_DIMS,
        dropout=0.0,
        compute_dtype="bfloat16" if bfloat16 else "float32",
    )


def device_batches(rows: int, batch: int) -> tuple[list[dict[str, jax.Array]], int]:
    """Batches of Zipf ids in device memory, and the mean number of distinct rows per batch."""
    ids, labels = batches(rows, BATCHES, batch)
    starts = np.arange(FIELDS) * field_rows(rows)
    distinct = [len(np.unique(of_batch + starts)) for of_batch in ids]
    mask = np.ones(batch, np.float32)
    on_device = [
        jax.device_put({"ids": of_batch, "labels": clicked[:, None], "mask": mask})
        for of_batch, clicked in zip(ids, labels, strict=True)
    ]
    return jax.block_until_ready(on_device), int(statistics.mean(distinct))


def milliseconds(run: Callable[[], Any], seconds: float, least: int = 3) -> list[float]:
    """Times ``run`` to completion, repeatedly for at least ``seconds``, after a first run."""
    jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < least or sum(times) < 1e3 * seconds:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - start))
    return times


def step_milliseconds(
    step: Callable[[Any, Any], tuple[Any, Any]], held: list[Any], data: list[Any], seconds: float
) -> list[float]:
    """Milliseconds per training step, for each run through the batches.

    The host does not wait between the steps of a run, as in training.

    Args:
      step: Training step, which donates its state.
      held: List with the state as its only element, which is replaced.
      data: Batches, used in turn.
      seconds: Shortest time to measure.
    """

    def run():
        state = held.pop()
        for batch in data:
            state, metrics = step(state, batch)
        held.append(state)
        return metrics

    return [each / len(data) for each in milliseconds(run, seconds)]


def rates(sizes: Sizes) -> dict[str, float]:
    """Measures the device's rates: FLOP/s of a product in each precision, bytes/s of a copy."""
    side = sizes.product
    found = {}
    for name, precision in PRECISIONS.items():
        dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        factor = jax.random.normal(jax.random.key(0), (side, side), dtype)
        product = jax.jit(functools.partial(jnp.dot, precision=precision))
        times = milliseconds(functools.partial(product, factor, factor), sizes.seconds)
        found[name] = 2e3 * side**3 / min(times)
    array = jnp.zeros(sizes.copied // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    found["bytes"] = 2e3 * array.nbytes / min(milliseconds(lambda: copy(array), sizes.seconds))
    return found


def floor_milliseconds(
    batch: int, distinct: int, precision: str, optimizer: str, attained: dict[str, float]
) -> float:
    """The time of a step whose products and compulsory bytes run at the device's measured rates.

    Products: forward and backward pass of the tower. Bytes: embeddings and first-order weights of
    all lookups are written and read forward, read again backward, and their gradients written and
    read; each touched row is read by the lookup, and read and written with its state by the update;
    each hidden activation is written and read forward, read backward, and its gradient written and
    read. The kernels of a step run one after another, so the two times are added.
    """
    widths = (FIELDS * EMBED_DIM, *MLP_DIMS, 1)
    products = sum(6 * batch * a * b for a, b in itertools.pairwise(widths))
    row = EMBED_DIM + 1
    state = OPTIMIZERS[optimizer] + (2 if optimizer == "adam" else 1)
    rows = 4 * (5 * batch * FIELDS * row + distinct * (3 * row + 2 * state))
    activation = 2 if precision == "bfloat16" else 4
    activations = 5 * activation * batch * sum(MLP_DIMS)
    return 1e3 * (products / attained[precision] + (rows + activations) / attained["bytes"])


def within(seconds: float, cases: list[Any]) -> Iterator[Any]:
    """Yields the cases until ``seconds`` have passed; reports the rest as skipped."""
    end = time.monotonic() + seconds
    for number, case in enumerate(cases):
        if time.monotonic() > end:
            emit(part="skipped", reason=f"the time was up before {cases[number:]}")
            return
        yield case
