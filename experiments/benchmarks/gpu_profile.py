"""Profiles a training step: ``python -m experiments.benchmarks.gpu_profile``.

A part of ``gpu_session``, at its first sizes with the tower in bfloat16: the longest kernels of a
profiled step, peak memory, compile time, the overlap of copies from the host with steps, and the
time of scoring by batch size. Prints a line of JSON for each.
"""

import pathlib
import re
import tempfile
import time
from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.profiler import ProfileData

from deepfm_jax.training.network import Network
from deepfm_jax.training.step import make_score_step
from experiments.benchmarks import gpu_speed, gpu_workload
from experiments.benchmarks.gpu_sizes import FULL, SMALL
from experiments.benchmarks.gpu_workload import OPTIMIZERS, emit

_KERNELS = 5
_STEPS = 4


def main() -> None:
    """Profiles a step with each row optimizer, then measures copies and scoring."""
    flags = gpu_workload.worker_flags(__doc__)
    sizes = SMALL if flags.small else FULL
    rows, batch = sizes.rows[0], sizes.batches[0]
    data, _ = gpu_workload.device_batches(rows, batch)
    held: list[Any] = []
    parts = [*OPTIMIZERS, "copies", "scoring"]
    program = None
    for part in gpu_workload.within(flags.seconds, parts):
        if part in OPTIMIZERS:
            held.clear()  # Two states would make the peak higher than training's.
            held.append(gpu_speed.first_state(rows, part))
            program = _profile(rows, part, held, data)
        elif part == "copies":
            emit(part="copies", rows=rows, batch=batch, **_copies(program, held, data, sizes))
        else:
            _score(rows, held.pop().weights, sizes)


def _profile(rows: int, optimizer: str, held: list[Any], data: list[Any]) -> Any:
    """Emits where a step's time and memory go; returns the compiled step."""
    start = time.perf_counter()
    program = gpu_speed.lower(rows, data[0], optimizer, "bfloat16", "sort").compile()
    seconds = time.perf_counter() - start
    gpu_workload.step_milliseconds(program, held, data, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            state = held.pop()
            for number in range(_STEPS):
                state, _ = program(state, data[number % len(data)])
            held.append(jax.block_until_ready(state))
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        kernels = kernel_milliseconds(ProfileData.from_file(str(file)))
    sources = dict(
        re.findall(r'%?([\w.-]+) = .*metadata=\{.*?op_name="([^"]*)"', program.as_text())
    )
    statistics = jax.devices()[0].memory_stats() or {}
    emit(
        part="profile",
        rows=rows,
        batch=len(data[0]["ids"]),
        optimizer=optimizer,
        kernels=[
            {"name": name, "milliseconds": each / _STEPS, "source": sources.get(name, "")}
            for name, each in kernels.most_common(_KERNELS)
        ],
        kernel_milliseconds=sum(kernels.values()) / _STEPS,
        different_kernels=len(kernels),
        compile_seconds=seconds,
        peak_gigabytes=statistics.get("peak_bytes_in_use", 0) / 1e9,
        temporary_gigabytes=program.memory_analysis().temp_size_in_bytes / 1e9,
    )
    return program


def kernel_milliseconds(profile: Any) -> Counter[str]:
    """Sums the time of the kernels of a profile by HLO operation.

    A GPU has its own plane, whose streams hold kernels and copies; a CPU's operations are among the
    threads of the host.
    """
    on_device = [plane for plane in profile.planes if plane.name.startswith("/device:GPU")]
    times: Counter[str] = Counter()
    for plane in on_device or profile.planes:
        for line in plane.lines:
            if on_device and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                name = dict(event.stats).get("hlo_op") or (event.name if on_device else None)
                if name is not None:
                    times[str(name)] += event.duration_ns / 1e6
    return times


def _copies(program: Any, held: list[Any], data: list[Any], sizes: Any) -> dict[str, float]:
    """Milliseconds of a step, of a batch's copy to the device, and of both in a training loop."""
    on_host = [jax.tree.map(np.asarray, batch) for batch in data]
    copy = gpu_workload.milliseconds(lambda: jax.device_put(on_host[0]), sizes.seconds)
    step = gpu_workload.step_milliseconds(program, held, data, sizes.seconds)

    def loop():
        state, following = held.pop(), jax.device_put(on_host[0])
        for number in range(len(on_host)):
            state, metrics = program(state, following)
            following = jax.device_put(on_host[(number + 1) % len(on_host)])
        held.append(state)
        return metrics

    both = [each / len(on_host) for each in gpu_workload.milliseconds(loop, sizes.seconds)]
    step_ms, copy_ms, both_ms = (sorted(each)[len(each) // 2] for each in (step, copy, both))
    # A loop copies one more batch than it has steps.
    together = step_ms + copy_ms * (1 + 1 / len(on_host))
    hidden = (together - both_ms) / min(step_ms, copy_ms)
    return {
        "step_milliseconds": step_ms,
        "copy_milliseconds": copy_ms,
        "both_milliseconds": both_ms,
        "overlapped_share": min(1.0, max(0.0, hidden)),
    }


def _score(rows: int, weights: Any, sizes: Any) -> None:
    """Emits the time of scoring a batch of each size, with the ids already on the device."""
    score = make_score_step(Network(gpu_workload.model(rows, True)))
    (batch, *_), _ = gpu_workload.device_batches(rows, max(sizes.scored))
    for size in sizes.scored:
        ids = jax.device_put(np.asarray(batch["ids"][:size]))
        times = gpu_workload.milliseconds(
            lambda ids=ids: score(weights, {"ids": ids}), sizes.seconds, least=20
        )
        emit(
            part="scoring",
            rows=rows,
            batch=size,
            milliseconds=sorted(times)[len(times) // 2],
            examples_per_second=1e3 * size / sorted(times)[len(times) // 2],
        )


if __name__ == "__main__":
    main()
