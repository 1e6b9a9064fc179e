"""Times the training step of this library and of its peers in one run.

``python -m experiments.benchmarks.train_step --peer_python=peers/bin/python --out=DIR``, with the
environment described in ``torch_peers.py``. All train the same DeepFM on the same batches
(``workload.py``), each in its own process, one after another and in several rounds, so that drifts
of the machine's speed affect all of them. Each figure is the median of all timed steps.

glibc's allocator has a large effect on a step's time on a CPU. Our launchers configure it; peers
are timed with glibc's defaults and with the same settings made by environment variables, and
each uses the better of the two. All run in float32 and in mixed precision (bfloat16). Ours in
float32 is compared with the peers in float32. Ours in bfloat16 is compared with the fastest of
the peers in either precision, and with those in bfloat16 only if the fastest is not among them.
Prints tables of the times and of the ratios, and writes ``results.json`` and ``train_step.png``.
"""

import itertools
import pathlib
from typing import Any

from absl import flags
from matplotlib import colormaps
from matplotlib.figure import Figure

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from experiments import launcher
from experiments.benchmarks import processes
from experiments.benchmarks.workload import BFLOAT16

_OURS = ("ours_rowwise_adagrad", "ours_adam")
_FBGEMM = ("fbgemm", "fbgemm_one_table")
_TORCH_ADAM = ("torch_adam", "torch_sparse_adam")
_PEERS = (*_FBGEMM, *_TORCH_ADAM, "deepctr", "fuxictr", "torch_tower")
_SYSTEMS_TIMED = processes.both_precisions((*_OURS, *_PEERS))
# Ours and the peers that the second table compares, by their names in float32.
_RATIOS = (
    ("ours_rowwise_adagrad", _FBGEMM),
    ("ours_adam", _TORCH_ADAM),
    ("ours_adam", ("deepctr",)),
    ("ours_adam", ("fuxictr",)),
)

_PEER_PYTHON = flags.DEFINE_string("peer_python", None, "Python of the peers; default: only ours.")
_ROWS = flags.DEFINE_multi_integer("rows", [10**5, 10**6, 10**7], "Rows of the table.")
_OURS_ROWS = flags.DEFINE_multi_integer("ours_rows", [33 * 10**6], "Rows timed only for ours.")
_SYSTEMS = flags.DEFINE_list("systems", list(_SYSTEMS_TIMED), "Systems to time.")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each figure.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps timed in each process.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of each system.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 4096, "Examples per batch.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/train_step", "Folder of results.")


def main() -> None:
    """Times all systems, prints the tables and writes the files."""
    if _PEER_PYTHON.value and not pathlib.Path(_PEER_PYTHON.value).is_file():
        raise UserError(f"--peer_python={_PEER_PYTHON.value}: no such file")
    jobs = [
        processes.Job(system, rows, _BATCH.value)
        for rows in (*_ROWS.value, *_OURS_ROWS.value)
        for system in _SYSTEMS.value
        if processes.is_ours(system) or (_PEER_PYTHON.value and rows in _ROWS.value)
    ]
    figures = processes.measure(
        jobs,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        threads=(_THREADS.value,),
        peer_python=_PEER_PYTHON.value or "",
    )
    print(processes.table(figures))
    print("\nour examples/s divided by those of the fastest named peer:")
    for ours, peers in _RATIOS:
        print("\n".join(processes.ratio_lines(figures, ours, peers)))
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    machine = processes.machine()
    write_json(out / "results.json", {"machine": machine, "figures": figures})
    _plot(figures).savefig(out / "train_step.png", dpi=150)
    print(f"results.json and train_step.png are in {out}")


def _plot(figures: list[dict[str, Any]]) -> Figure:
    """Plots examples per second against V, both logarithmic.

    A system has one color; bfloat16 is dashed with open markers, and ours is thicker.
    """
    figure = Figure(figsize=(9.0, 5.5), layout="constrained")
    axes = figure.subplots()
    systems = dict.fromkeys(f["system"] for f in figures)
    palette = colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]
    names = dict.fromkeys(system.removesuffix(BFLOAT16) for system in systems)
    colors = dict(zip(names, itertools.cycle(palette), strict=False))
    for system in systems:
        points = sorted(
            (f["rows"], f["examples_per_second"]) for f in figures if f["system"] == system
        )
        bfloat16 = system.endswith(BFLOAT16)
        axes.plot(
            *zip(*points, strict=True),
            color=colors[system.removesuffix(BFLOAT16)],
            marker="o",
            markerfacecolor="white" if bfloat16 else None,
            linewidth=2.4 if processes.is_ours(system) else 1.1,
            linestyle="--" if bfloat16 else "-",
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
