"""Times whole training epochs of DeepFM on Frappe, data reading included, beside FuxiCTR's.

``python -m experiments.benchmarks.epoch --data=data --peer_python=peers/bin/python``, after
``prepare`` has put Frappe into ``data``, and with the environment described in ``torch_peers.py``.
Both train the recipe of ``configs/frappe.py`` on the same encoded rows, each through its own reader
and its own step: ours from the prepared blocks, FuxiCTR, with its ``train_epoch``, from an npz file
of the same ids, which is written first. Neither evaluates. Prints a table, and writes
``results.json``.
"""

import pathlib
import statistics

import numpy as np
from absl import flags

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from experiments import launcher
from experiments.benchmarks import processes

_DATA = flags.DEFINE_string("data", "data", "Folder of prepared data sets.")
_PEER_PYTHON = flags.DEFINE_string("peer_python", None, "Python of the peers.", required=True)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs timed in each process.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each figure.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/epoch", "Folder of results.")


def main() -> None:
    """Writes the peer's file, times both, prints the table."""
    from deepfm_jax.input.pipeline import PreparedData

    if not pathlib.Path(_PEER_PYTHON.value).is_file():
        raise UserError(f"--peer_python={_PEER_PYTHON.value}: no such file")
    out = pathlib.Path(_OUT.value).absolute()
    out.mkdir(parents=True, exist_ok=True)
    data = PreparedData("frappe", _DATA.value)
    rows = data.rows("train")
    (whole,) = data.batches("train", rows)
    columns = {f"field_{f}": ids for f, ids in enumerate(whole["ids"].T)}
    np.savez(
        out / "train.npz",
        label=whole["labels"][:, 0],
        field_dims=np.array([feature.rows for feature in data.encoder.features]),
        **columns,  # pyright: ignore[reportArgumentType]
    )
    folder = pathlib.Path(_DATA.value).absolute()
    commands = {
        "ours_epoch": ["ours_epoch.py", f"--data={folder}"],
        "fuxictr_epoch": ["fuxictr_epoch.py", f"--file={out / 'train.npz'}"],
    }
    figures = []
    for system, command in commands.items():
        for allocator in processes.allocators(system):
            seconds, peak = [], 0
            for _ in range(_ROUNDS.value):
                report = processes.run(
                    [*command, f"--epochs={_EPOCHS.value}"], system, allocator, _PEER_PYTHON.value
                )
                seconds += report["step_seconds"]
                peak = max(peak, report["peak_rss_bytes"])
            median = statistics.median(seconds)
            figures.append(
                {
                    "system": system,
                    "allocator": allocator,
                    "seconds_per_epoch": median,
                    "examples_per_second": rows / median,
                    "peak_gigabytes": peak / 1e9,
                }
            )
            print(
                f"{system:16}{allocator:10}{median:8.2f} s/epoch{rows / median:12,.0f} examples/s"
            )
    ours, *theirs = (figure["examples_per_second"] for figure in figures)
    print(f"ours / fuxictr: {ours / max(theirs):.2f}")
    write_json(out / "results.json", {"machine": processes.machine(), "figures": figures})


if __name__ == "__main__":
    launcher.run(main)
