"""Runs the workers of a benchmark, each system in its own process, and computes their figures."""

import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from deepfm_jax.errors import UserError
from experiments.benchmarks.workload import BFLOAT16

_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parents[1]  # Our scripts import `experiments`, which no installation exposes.
# The glibc settings of our launchers, as the environment variables that peers need.
_TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}


class Job(NamedTuple):
    """One system at one size.

    Attributes:
      system: Name of the system in ``ours.py`` or ``torch_peers.py``.
      rows: Rows of the table.
      batch: Examples per batch.
    """

    system: str
    rows: int
    batch: int


def is_ours(system: str) -> bool:
    """Whether ``ours.py`` runs a system, rather than ``torch_peers.py``."""
    return system.startswith("ours")


def measure(
    jobs: Iterable[Job], *, rounds: int, steps: int, threads: Sequence[int], peer_python: str
) -> list[dict[str, Any]]:
    """Runs all jobs one after another, ``rounds`` times, and returns the figures of each.

    Each system runs with every number of threads, and each peer both with glibc's defaults and
    tuned; the figures are those of its best setting. A round goes through all jobs before the next
    begins, so that drifts of the machine's speed affect all of them.

    Raises:
      UserError: a worker failed; the message has its last line.
    """
    reports: dict[tuple[Job, str, int], list[dict[str, Any]]] = {}
    plan = [
        (job, *setting)
        for job in jobs
        for setting in itertools.product(allocators(job.system), threads)
    ]
    for job, allocator, cores in tqdm(plan * rounds, unit="run"):
        command = [
            "ours.py" if is_ours(job.system) else "torch_peers.py",
            f"--system={job.system}",
            f"--rows={job.rows}",
            f"--batch={job.batch}",
            f"--steps={steps}",
            f"--threads={cores}",
        ]
        report = run(command, job.system, allocator, peer_python)
        reports.setdefault((job, allocator, cores), []).append(report)
    best: dict[Job, dict[str, Any]] = {}
    for (job, allocator, cores), of_job in reports.items():
        figure = _figure(job, allocator, cores, of_job)
        if job not in best or figure["milliseconds"] < best[job]["milliseconds"]:
            best[job] = figure
    return list(best.values())


def allocators(system: str) -> tuple[str, ...]:
    """The settings of glibc's allocator with which a system is timed."""
    return ("own",) if is_ours(system) else ("default", "tuned")


def run(command: list[str], system: str, allocator: str, peer_python: str) -> dict[str, Any]:
    """Runs one worker and returns its report.

    Args:
      command: A script of this folder and its flags.
      system: Name of the system, which determines the Python that runs it.
      allocator: One of ``allocators(system)``.
      peer_python: Python of the peers.

    Raises:
      UserError: the worker failed; the message has its last line.
    """
    python = sys.executable if is_ours(system) else os.path.abspath(peer_python)
    done = subprocess.run(
        [python, *command],
        cwd=_HERE,
        env={
            **os.environ,
            **(_TUNED if allocator == "tuned" else {}),
            **(_python_path() if is_ours(system) else {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{' '.join(command)} failed: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _python_path() -> dict[str, str]:
    paths = filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _figure(
    job: Job, allocator: str, threads: int, reports: list[dict[str, Any]]
) -> dict[str, Any]:
    seconds = [step for report in reports for step in report["step_seconds"]]
    figure = {
        **job._asdict(),
        "allocator": allocator,
        "threads": threads,
        "milliseconds": 1e3 * statistics.median(seconds),
        "milliseconds_of_rounds": [1e3 * statistics.median(r["step_seconds"]) for r in reports],
        "examples_per_second": job.batch / statistics.median(seconds),
        "peak_gigabytes": max(report["peak_rss_bytes"] for report in reports) / 1e9,
    }
    if "table_and_slots_bytes" in reports[0]:
        figure["table_and_slots_gigabytes"] = reports[0]["table_and_slots_bytes"] / 1e9
    return figure


def table(figures: list[dict[str, Any]]) -> str:
    """Formats the figures as aligned text."""
    titles = ("system", "rows", "batch", "ms", "examples/s", "peak GB")
    numbers = "".join(f"{title:>12}" for title in titles[1:])
    lines = [f"{titles[0]:28}{numbers}  threads  allocator"]
    lines += [
        f"{f['system']:28}{f['rows']:12,}{f['batch']:12,}{f['milliseconds']:12.2f}"
        f"{f['examples_per_second']:12,.0f}{f['peak_gigabytes']:12.2f}"
        f"{f['threads']:9}  {f['allocator']}"
        for f in figures
    ]
    return "\n".join(lines)


def both_precisions(systems: Iterable[str]) -> tuple[str, ...]:
    """Each system in float32 and in bfloat16."""
    return tuple(system + dtype for system in systems for dtype in ("", BFLOAT16))


def ratio_lines(figures: list[dict[str, Any]], ours: str, peers: tuple[str, ...]) -> list[str]:
    """Compares one of our systems, in either precision, with the fastest of some peers.

    Ours in float32 is compared with the peers in float32. A CPU may run autocast slower than
    float32, so ours in bfloat16 is compared with the fastest of the peers in either precision, and
    on a separate line with the peers in bfloat16 only, if that is a different comparison.

    Args:
      figures: Figures from ``measure``.
      ours: Float32 name of our system.
      peers: Float32 names of the peers.
    """
    either, bfloat16 = both_precisions(peers), tuple(peer + BFLOAT16 for peer in peers)
    lines = [ratio_line(figures, ours, peers), ratio_line(figures, ours + BFLOAT16, either)]
    alone = _ratios(figures, ours + BFLOAT16, bfloat16)
    if alone and alone != _ratios(figures, ours + BFLOAT16, either):
        lines.append(ratio_line(figures, ours + BFLOAT16, bfloat16))
    return lines


def ratio_line(figures: list[dict[str, Any]], ours: str, peers: tuple[str, ...]) -> str:
    """Our examples per second divided by the fastest peer's, for sizes at which both were timed."""
    cells = [
        f"{ratio:.2f} at {rows:,} rows, batch {batch:,}" + (f" ({peer})" if len(peers) > 1 else "")
        for (rows, batch), (peer, ratio) in _ratios(figures, ours, peers).items()
    ]
    return f"{ours} / {' or '.join(peers)}: {'; '.join(cells) or 'not timed'}"


def _ratios(
    figures: list[dict[str, Any]], ours: str, peers: tuple[str, ...]
) -> dict[tuple[int, int], tuple[str, float]]:
    """For each size (rows, batch), the fastest peer and our rate divided by its rate."""
    rates = {(f["system"], f["rows"], f["batch"]): f["examples_per_second"] for f in figures}
    ratios = {}
    for system, *size in rates:
        timed = [peer for peer in peers if (peer, *size) in rates]
        if system == ours and timed:
            fastest = max(timed, key=lambda peer: rates[peer, *size])
            ratios[tuple(size)] = fastest, rates[ours, *size] / rates[fastest, *size]
    return ratios


def machine() -> dict[str, Any]:
    """The machine on which the figures were measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
