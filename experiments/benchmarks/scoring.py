"""Times scoring of this library and of plain PyTorch in one run: the forward pass alone.

``python -m experiments.benchmarks.scoring --peer_python=peers/bin/python``, with the environment
described in ``torch_peers.py``. The model and the ids are those of ``train_step.py``; batches of
4096 examples measure throughput, and batches of one measure latency, which is lower with one
thread. Both run in float32 and in bfloat16, and are compared as in ``train_step.py``. Prints a
table and writes ``results.json``.
"""

import pathlib

from absl import flags

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from experiments import launcher
from experiments.benchmarks import processes

_OURS = "ours_scoring"
_PEERS = ("torch_scoring",)

_PEER_PYTHON = flags.DEFINE_string("peer_python", None, "Python of the peers.", required=True)
_ROWS = flags.DEFINE_multi_integer("rows", [10**6], "Rows of the table.")
_BATCHES = flags.DEFINE_multi_integer("batch", [4096, 1], "Examples per batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each figure.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Batches timed in each process.", lower_bound=1)
_THREADS = flags.DEFINE_multi_integer("threads", [1, 2], "Threads; each system uses its best.")
_OUT = flags.DEFINE_string("out", "runs/scoring", "Folder of results.")


def main() -> None:
    """Times all systems, prints the tables and writes the file."""
    if not pathlib.Path(_PEER_PYTHON.value).is_file():
        raise UserError(f"--peer_python={_PEER_PYTHON.value}: no such file")
    figures = processes.measure(
        [
            processes.Job(system, rows, batch)
            for rows in _ROWS.value
            for batch in _BATCHES.value
            for system in processes.both_precisions((_OURS, *_PEERS))
        ],
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        threads=_THREADS.value,
        peer_python=_PEER_PYTHON.value,
    )
    print(processes.table(figures))
    print("\n".join(processes.ratio_lines(figures, _OURS, _PEERS)))
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    machine = processes.machine()
    write_json(out / "results.json", {"machine": machine, "figures": figures})
    print(f"results.json is in {out}")


if __name__ == "__main__":
    launcher.run(main)
