"""Times our training step on the device: ``python -m experiments.benchmarks.gpu_speed``.

A part of ``gpu_session``. For each size of table and batch it times row-wise Adagrad and lazy Adam,
each with the tower in float32, tf32 and bfloat16, and sums of row gradients by sort and by slot
map. The programs of a size are compiled in parallel before the first of them is timed. Prints a
line of JSON for each (``gpu_workload.emit``).
"""

import concurrent.futures
import itertools
import os
import time
from typing import Any
from unittest import mock

import jax

from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.embedding import create_scratches, tables
from deepfm_jax.training import state as states
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer, create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, RowSettings
from deepfm_jax.training.state import placement_for
from deepfm_jax.training.step import make_train_step
from experiments.benchmarks import gpu_workload
from experiments.benchmarks.gpu_sizes import FULL, SMALL
from experiments.benchmarks.gpu_workload import OPTIMIZERS, PRECISIONS, emit

# The slot map is a separate question, which one precision answers.
CASES = [
    *itertools.product(OPTIMIZERS, PRECISIONS, ("sort",)),
    *itertools.product(OPTIMIZERS, ("bfloat16",), ("slot_map",)),
]


def main() -> None:
    """Times all cases, the largest batch first, until the time is up."""
    flags = gpu_workload.worker_flags(__doc__)
    sizes = SMALL if flags.small else FULL
    attained = gpu_workload.rates(sizes)
    emit(part="rates", device=jax.devices()[0].device_kind, jax=jax.__version__, **attained)
    end = time.monotonic() + flags.seconds
    states_of: dict[Any, list[Any]] = {}
    for rows, batch in gpu_workload.within(
        flags.seconds, list(itertools.product(sizes.rows, sizes.batches))
    ):
        states_of = {key: held for key, held in states_of.items() if key[0] == rows}
        _time_size(rows, batch, sizes, attained, states_of, end)


def _time_size(rows, batch, sizes, attained, states_of, end) -> None:
    data, distinct = gpu_workload.device_batches(rows, batch)
    lowered = {case: lower(rows, data[0], *case) for case in CASES}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = dict(zip(lowered, pool.map(_compile, lowered.values()), strict=True))
    for case, (program, seconds) in compiled.items():
        if time.monotonic() > end:
            emit(part="skipped", reason=f"the time was up before {case} of {rows} x {batch}")
            return
        optimizer, precision, sums = case
        key = (rows, optimizer)
        held = states_of.get(key) or [first_state(rows, optimizer)]
        # Both ways keep the same state except for the slot map's scratch.
        with _sums_by(sums):
            layout = gpu_workload.model(rows, False).layout
            scratch = create_scratches(layout, "gpu", held[0].params["table"])
        held = [held[0].replace(scratch=scratch)]
        times = gpu_workload.step_milliseconds(program, held, data, sizes.seconds)
        states_of[key] = [held[0].replace(scratch={})]
        cost = program.cost_analysis() or {}
        emit(
            part="speed",
            system="ours",
            rows=rows,
            batch=batch,
            optimizer=optimizer,
            precision=precision,
            sums=sums,
            milliseconds=sorted(times)[len(times) // 2],
            least_milliseconds=min(times),
            floor_milliseconds=gpu_workload.floor_milliseconds(
                batch, distinct, precision, optimizer, attained
            ),
            gigaflops=cost.get("flops", 0) / 1e9,
            gigabytes=cost.get("bytes accessed", 0) / 1e9,
            temporary_gigabytes=program.memory_analysis().temp_size_in_bytes / 1e9,
            compile_seconds=seconds,
            distinct_rows=distinct,
        )


def optimizer_of(name: str) -> Optimizer:
    """Adam for the tower, and the row optimizer of that name for the table."""
    return create_optimizer(OptimizerSettings(rows=RowSettings(name=name)), 1, "sparse")


def first_state(rows: int, optimizer: str) -> Any:
    """Creates the state before the first step, without a scratch."""
    mesh = create_mesh(jax.devices()[:1])
    with _sums_by("sort"):
        network = gpu_workload.model(rows, False)
        return states.create_state(
            Network(network),
            optimizer_of(optimizer),
            0,
            placement_for(optimizer_of(optimizer), mesh),
        )


def lower(rows: int, batch: Any, optimizer: str, precision: str, sums: str) -> Any:
    """Lowers the training step of a case."""
    mesh = create_mesh(jax.devices()[:1])
    network = gpu_workload.model(rows, precision == "bfloat16")
    with _sums_by(sums), jax.default_matmul_precision(PRECISIONS[precision]):
        step = make_train_step(
            Network(network), optimizer_of(optimizer), placement_for(optimizer_of(optimizer), mesh)
        )
        return step.lower(
            states.abstract_state(
                Network(network),
                optimizer_of(optimizer),
                placement_for(optimizer_of(optimizer), mesh),
            ),
            batch,
        )


def _compile(lowered: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    program = lowered.compile()
    return program, time.perf_counter() - start


def _sums_by(way: str):
    """Forces one of the two ways to sum row gradients, whatever the platform."""
    return mock.patch.object(tables, "needs_scratch", return_value=way == "slot_map")


if __name__ == "__main__":
    main()
