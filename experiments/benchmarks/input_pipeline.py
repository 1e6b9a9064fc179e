"""Times the path from text files to batches: preparing (beside peers), reading, training.

``python -m experiments.benchmarks.input_pipeline --peer_python=peers/bin/python --out=DIR`` writes
simulated click logs in Criteo's layout and measures, each in its own process:

* ``prepare`` (fit, encode, write) beside a pandas script, a polars script and FuxiCTR's own
  preprocessing, which all encode the same rows as specified in encoding_task.py; rows per second,
  and peak memory;
* our ``prepare`` of fewer rows too, which should use the same memory;
* reading the prepared rows from disk in shuffled batches, without a model;
* training DeepFM from disk against training from batches in memory, and the share of the time in
  which a step waits for its batch.

The peers' environment is that of ``torch_peers.py``, with a polars that works with FuxiCTR 2.3.10:
``peers/bin/pip install pandas 'polars<2'``. pandas is timed with two parsers and FuxiCTR with two
sizes of its output files; ratios are to the faster. Every round goes through all systems, so that
drifts of the machine's speed affect all of them, and figures are medians of the rounds. The files
are read once beforehand, so that no system waits for the disk. Prints tables and writes
``results.json``; with ``--keep`` the files stay in ``DIR``.
"""

import pathlib
import shutil
import statistics
from typing import Any

from absl import flags
from tqdm import tqdm

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from experiments import launcher
from experiments.benchmarks import processes
from experiments.benchmarks.encoding_task import FILES

# The script and flags of each way to prepare; the first is ours.
_PREPARE = {
    "ours_prepare": ["ours_prepare.py"],
    "pandas": ["pandas_prepare.py"],
    "pandas_pyarrow": ["pandas_prepare.py", "--engine=pyarrow"],
    "polars": ["polars_prepare.py"],
    "fuxictr": ["fuxictr_prepare.py"],
    "fuxictr_blocks": ["fuxictr_prepare.py", "--data_block_size={block_rows}"],
}
_PEERS = {
    "pandas": ("pandas", "pandas_pyarrow"),
    "polars": ("polars",),
    "FuxiCTR": ("fuxictr", "fuxictr_blocks"),
}

_PEER_PYTHON = flags.DEFINE_string("peer_python", None, "Python of the peers; default: only ours.")
_ROWS = flags.DEFINE_integer("rows", 5_000_000, "Rows of all three files.", lower_bound=1000)
_FEWER_ROWS = flags.DEFINE_integer(
    "fewer_rows", 1_000_000, "Rows of a second run of ours, to compare memory.", lower_bound=1000
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes for each figure.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of each pass of training.", lower_bound=1)
_SYSTEMS = flags.DEFINE_list("systems", list(_PREPARE), "Ways to prepare.")
_OUT = flags.DEFINE_string("out", "runs/input_pipeline", "Folder of results.")
_KEEP = flags.DEFINE_bool("keep", False, "Keep the simulated and the prepared files.")


def main() -> None:
    """Writes the files, runs the workers, prints the tables."""
    if _PEER_PYTHON.value and not pathlib.Path(_PEER_PYTHON.value).is_file():
        raise UserError(f"--peer_python={_PEER_PYTHON.value}: no such file")
    unknown = sorted(set(_SYSTEMS.value) - set(_PREPARE))
    if unknown:
        raise UserError(f"--systems: {unknown[0]!r} is unknown; use some of {', '.join(_PREPARE)}")
    out = pathlib.Path(_OUT.value).absolute()
    files = out / "files"
    try:
        _simulate(files)
        preparing = _prepare(files)
        reading = [_reading(files) for _ in _rounds("read")]
        training = [
            _worker(
                "ours_training.py", _data(files), f"--steps={_STEPS.value}", f"--round={number}"
            )
            for number in _rounds("train")
        ]
    finally:
        if not _KEEP.value:
            shutil.rmtree(files, ignore_errors=True)
    results = {
        "machine": processes.machine(),
        "prepare": [_prepare_figure(key, reports) for key, reports in preparing.items()],
        "read": _read_figure(reading),
        "train": _train_figure(training),
    }
    results["ratios"] = _ratios(results["prepare"])
    print(_table(results))
    write_json(out / "results.json", results)
    print(f"results.json is in {out}")


def _rounds(title: str) -> "tqdm[int]":
    return tqdm(range(_ROUNDS.value), desc=title, unit="run")


def _simulate(files: pathlib.Path) -> None:
    # Imported here so that the flags are checked before TensorFlow is imported.
    from experiments.benchmarks.simulated_files import write_files

    for rows in {_ROWS.value, _FEWER_ROWS.value}:
        folder = files / str(rows)
        if (folder / "whole").is_file():  # Kept from an earlier run.
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, rows)
        (folder / "whole").touch()


def _prepare(files: pathlib.Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Runs each way to prepare at each number of rows, and returns the reports."""
    ways = [(system, _ROWS.value) for system in _SYSTEMS.value]
    if "ours_prepare" in _SYSTEMS.value and _FEWER_ROWS.value != _ROWS.value:
        ways.append(("ours_prepare", _FEWER_ROWS.value))
    if not _PEER_PYTHON.value:
        ways = [way for way in ways if processes.is_ours(way[0])]
    reports: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for system, rows in tqdm(ways * _ROUNDS.value, desc="prepare", unit="run"):
        source = files / str(rows)
        _into_memory(source)
        out = files / f"{system}_{rows}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        # Several files of each split.
        script, *options = (part.format(block_rows=rows // 50) for part in _PREPARE[system])
        report = _worker(script, *options, f"--source={source}", f"--out={out}", system=system)
        reports.setdefault((system, rows), []).append(report)
        if not processes.is_ours(system):
            shutil.rmtree(out)
    return reports


def _into_memory(source: pathlib.Path) -> None:
    for split in FILES:
        for path in source.glob(f"{split}.*"):
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass


def _data(files: pathlib.Path) -> str:
    return f"--data={files / f'ours_prepare_{_ROWS.value}'}"


def _reading(files: pathlib.Path) -> dict[str, Any]:
    return _worker("ours_reading.py", _data(files))


def _training(files: pathlib.Path, number: int) -> dict[str, Any]:
    options = (f"--steps={_STEPS.value}", f"--round={number}")
    return _worker("ours_training.py", _data(files), *options)


def _worker(script: str, *options: str, system: str = "ours") -> dict[str, Any]:
    return processes.run([script, *options], system, "own", _PEER_PYTHON.value or "")


def _prepare_figure(key: tuple[str, int], reports: list[dict[str, Any]]) -> dict[str, Any]:
    system, rows = key
    seconds = [report["step_seconds"][0] for report in reports]
    return {
        "system": system,
        "rows": rows,
        "seconds": statistics.median(seconds),
        "seconds_of_rounds": seconds,
        "rows_per_second": rows / statistics.median(seconds),
        "peak_gigabytes": _peak(reports),
    }


def _read_figure(reports: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [epoch for report in reports for epoch in report["step_seconds"]]
    rows = reports[0]["rows"]
    return {
        "rows": rows,
        "seconds_of_epochs": seconds,
        "rows_per_second": rows / statistics.median(seconds),
        "peak_gigabytes": _peak(reports),
    }


def _train_figure(reports: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = {
        source: [report["examples"] / report[f"{source}_seconds"] for report in reports]
        for source in ("memory", "disk")
    }
    pairs = zip(speeds["disk"], speeds["memory"], strict=True)
    return {
        "examples_per_second_from_memory": statistics.median(speeds["memory"]),
        "examples_per_second_from_disk": statistics.median(speeds["disk"]),
        "disk_for_one_of_memory": statistics.median(disk / memory for disk, memory in pairs),
        "waiting_share": statistics.median(report["waiting_share"] for report in reports),
        "reports": reports,
    }


def _peak(reports: list[dict[str, Any]]) -> float:
    return max(report["peak_rss_bytes"] for report in reports) / 1e9


def _ratios(figures: list[dict[str, Any]]) -> dict[str, float]:
    """Our rows per second divided by each peer's, and our memory divided by that for fewer rows."""
    found = {(figure["system"], figure["rows"]): figure for figure in figures}
    ours = found.get(("ours_prepare", _ROWS.value))
    if ours is None:
        return {}
    ratios = {}
    for peer, systems in _PEERS.items():
        speeds = [
            found[system, _ROWS.value]["rows_per_second"]
            for system in systems
            if (system, _ROWS.value) in found
        ]
        if speeds:
            ratios[f"rows/s for one of {peer}"] = ours["rows_per_second"] / max(speeds)
    fewer = found.get(("ours_prepare", _FEWER_ROWS.value), ours)
    if fewer is not ours:
        name = f"memory for one at {_FEWER_ROWS.value:,} rows"
        ratios[name] = ours["peak_gigabytes"] / fewer["peak_gigabytes"]
    return ratios


def _table(results: dict[str, Any]) -> str:
    lines = [f"{'prepare':20}{'rows':>12}{'s':>10}{'rows/s':>12}{'peak GB':>10}"]
    lines += [
        f"{f['system']:20}{f['rows']:12,}{f['seconds']:10.1f}{f['rows_per_second']:12,.0f}"
        f"{f['peak_gigabytes']:10.2f}"
        for f in results["prepare"]
    ]
    lines += [f"ours, {name}: {ratio:.2f}" for name, ratio in results["ratios"].items()]
    read, train = results["read"], results["train"]
    lines += [
        f"reading shuffled batches: {read['rows_per_second']:,.0f} rows/s, "
        f"peak {read['peak_gigabytes']:.2f} GB",
        f"training from memory: {train['examples_per_second_from_memory']:,.0f} examples/s; "
        f"from disk: {train['examples_per_second_from_disk']:,.0f} "
        f"({train['disk_for_one_of_memory']:.3f} times); "
        f"waiting {train['waiting_share']:.2%} of the time",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    launcher.run(main)
