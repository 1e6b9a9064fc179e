"""Times the training step of this library and of its peers in one run.

``python -m experiments.benchmarks.train_step --peer_python=peers/bin/python --out=DIR``, with the
environment that ``torch_peers.py`` says how to make. All train the same DeepFM on the same batches
(``workload.py``), each in a process of its own, one after the other and several rounds of it, so
that a machine whose speed drifts does it to all. Each figure is the median of all steps timed.

glibc's allocator decides much of a step's time on a CPU. Our launchers set it for themselves; peers
are timed with glibc's defaults and with the same settings made by environment variables, and
each is given the better of its two. Prints a table, and writes ``results.json`` and
``train_step.png``.
"""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from typing import Any

from absl import flags
from matplotlib.figure import Figure
from tqdm import tqdm

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from experiments import launcher

_HERE = pathlib.Path(__file__).parent
_OURS = ("ours_rowwise_adagrad", "ours_adam", "ours_rowwise_adagrad_bf16", "ours_adam_bf16")
_PEERS = (
    "fbgemm",
    "fbgemm_one_table",
    "torch_adam",
    "torch_sparse_adam",
    "deepctr",
    "fuxictr",
    "torch_tower",
)
_TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",
}
# Ours against the fastest of some peers, the comparison that each line of the second table makes.
_RATIOS = (
    ("ours_rowwise_adagrad", ("fbgemm", "fbgemm_one_table")),
    ("ours_rowwise_adagrad_bf16", ("fbgemm", "fbgemm_one_table")),
    ("ours_adam", ("torch_adam", "torch_sparse_adam")),
    ("ours_adam_bf16", ("torch_adam", "torch_sparse_adam")),
    ("ours_adam", ("deepctr",)),
    ("ours_adam", ("fuxictr",)),
)

_PEER_PYTHON = flags.DEFINE_string("peer_python", None, "Python of the peers; none: ours alone.")
_ROWS = flags.DEFINE_multi_integer("rows", [10**5, 10**6, 10**7], "Rows of the table.")
_OURS_ROWS = flags.DEFINE_multi_integer("ours_rows", [33 * 10**6], "Rows for ours alone.")
_SYSTEMS = flags.DEFINE_list("systems", [*_OURS, *_PEERS], "Systems to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each figure.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps timed in each process.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of each system.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 4096, "Examples in a batch.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/train_step", "Folder of results.")


def main() -> None:
    """Times all systems, prints the tables and writes the files."""
    unknown = sorted(set(_SYSTEMS.value) - {*_OURS, *_PEERS, "ours_dense_adam"})
    if unknown:
        raise UserError(f"--systems: {unknown[0]!r} is unknown; use {', '.join([*_OURS, *_PEERS])}")
    if _PEER_PYTHON.value and not pathlib.Path(_PEER_PYTHON.value).is_file():
        raise UserError(f"--peer_python={_PEER_PYTHON.value}: no such file")
    jobs = [
        (system, rows, allocator)
        for _ in range(_ROUNDS.value)
        for rows in (*_ROWS.value, *_OURS_ROWS.value)
        for system in _SYSTEMS.value
        for allocator in _allocators(system, rows)
    ]
    runs: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for job in tqdm(jobs, unit="run"):
        runs.setdefault(job, []).append(_run(*job))
    figures = _figures(runs)
    print(_table(figures))
    print(_ratios(figures))
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", {"machine": _machine(), "figures": figures})
    _plot(figures).savefig(out / "train_step.png", dpi=150)
    print(f"results.json and train_step.png are in {out}")


def _is_ours(system: str) -> bool:
    return system.startswith("ours")


def _allocators(system: str, rows: int) -> tuple[str, ...]:
    if _is_ours(system):
        return ("own",)
    return ("default", "tuned") if _PEER_PYTHON.value and rows in _ROWS.value else ()


def _run(system: str, rows: int, allocator: str) -> dict[str, Any]:
    """One process; what it reported."""
    script = "ours.py" if _is_ours(system) else "torch_peers.py"
    python = sys.executable if _is_ours(system) else os.path.abspath(_PEER_PYTHON.value or "")
    command = [python, script, f"--system={system}", f"--rows={rows}", f"--steps={_STEPS.value}"]
    command += [f"--threads={_THREADS.value}", f"--batch={_BATCH.value}"]
    environment = {**os.environ, **(_TUNED if allocator == "tuned" else {})}
    done = subprocess.run(
        command, cwd=_HERE, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"{system} with {rows} rows failed: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _figures(runs: dict[tuple[str, int, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The median of each system and size, with the allocator that served it best."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for (system, rows, allocator), reports in runs.items():
        seconds = [step for report in reports for step in report["step_seconds"]]
        figure = {
            "system": system,
            "rows": rows,
            "allocator": allocator,
            "milliseconds": 1e3 * statistics.median(seconds),
            "rounds": [1e3 * statistics.median(report["step_seconds"]) for report in reports],
            "examples_per_second": _BATCH.value / statistics.median(seconds),
            "peak_gigabytes": max(report["peak_rss_bytes"] for report in reports) / 1e9,
        }
        if "table_and_slots_bytes" in reports[0]:
            figure["table_and_slots_gigabytes"] = reports[0]["table_and_slots_bytes"] / 1e9
        there = best.get((system, rows))
        if there is None or figure["milliseconds"] < there["milliseconds"]:
            best[system, rows] = figure
    return list(best.values())


def _table(figures: list[dict[str, Any]]) -> str:
    lines = [
        f"{'system':28}{'rows':>12}{'ms/step':>10}{'examples/s':>12}{'peak GB':>10}  allocator"
    ]
    lines += [
        f"{f['system']:28}{f['rows']:12,}{f['milliseconds']:10.1f}{f['examples_per_second']:12,.0f}"
        f"{f['peak_gigabytes']:10.2f}  {f['allocator']}"
        for f in figures
    ]
    return "\n".join(lines)


def _ratios(figures: list[dict[str, Any]]) -> str:
    rates = {(f["system"], f["rows"]): f["examples_per_second"] for f in figures}
    lines = ["", "examples/s of ours for one of the fastest named peer's:"]
    for ours, peers in _RATIOS:
        cells = []
        for rows in _ROWS.value:
            theirs = [rates[peer, rows] for peer in peers if (peer, rows) in rates]
            if theirs and (ours, rows) in rates:
                cells.append(f"{rates[ours, rows] / max(theirs):.2f} at {rows:,}")
        if cells:
            lines.append(f"{ours} / {' or '.join(peers)}: {', '.join(cells)}")
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": _THREADS.value,
        "batch": _BATCH.value,
        "system": platform.platform(),
    }


def _plot(figures: list[dict[str, Any]]) -> Figure:
    """Examples per second against V, both logarithmic; ours drawn heavier."""
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for system in dict.fromkeys(f["system"] for f in figures):
        points = sorted(
            (f["rows"], f["examples_per_second"]) for f in figures if f["system"] == system
        )
        ours = _is_ours(system)
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            linewidth=2.4 if ours else 1.1,
            linestyle="-" if ours else "--",
            label=system,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="rows of the table",
        ylabel="examples per second",
        title=f"Training step of DeepFM, batch {_BATCH.value:,}, {_THREADS.value} threads",
    )
    axes.grid(color="#e3e3e3", linewidth=0.7, which="both")
    axes.legend(frameon=False, fontsize="small", bbox_to_anchor=(1.01, 1.0), loc="upper left")
    return figure


if __name__ == "__main__":
    launcher.run(main)
