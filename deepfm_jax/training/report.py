"""The report of a run: results.json and two plots."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from deepfm_jax.distributed import hosts
from deepfm_jax.files import write_json
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.metrics import BinaryMetrics, TaskMetrics, oracle_coverage
from deepfm_jax.training.checkpoint import Progress
from deepfm_jax.training.plots import save_calibration_plot, save_training_plot
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import parameter_count
from deepfm_jax.typing import PyTree

_PACKAGES = ("deepfm-jax", "jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets")


def write_report(
    workdir: str | os.PathLike[str],
    experiment: Experiment,
    data: PreparedData,
    progress: Progress,
    params: PyTree,
    states: Mapping[str, TaskMetrics],
    choices: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes ``results.json``, ``training.png`` and ``calibration.png``; returns the results.

    Args:
      workdir: Folder of the run.
      experiment: Settings of the run.
      data: Its data set.
      progress: Its progress at the end.
      params: Parameters of the model, or their shapes.
      states: Metrics by split.
      choices: What the run chose for settings of ``"auto"``, by name.
    """
    folder = pathlib.Path(workdir)
    metrics = {split: state.compute(split=split) for split, state in states.items()}
    results: dict[str, Any] = {
        "config": experiment.to_dict(),
        "dataset": {
            "name": experiment.data.name,
            "rows": {split: data.rows(split) for split in data.summaries},
            "fingerprint": data.fingerprint,
            "labels": list(data.labels),
            "negative_rate": experiment.data.negative_rate,
        },
        "metrics": metrics,
        "throughput": {
            "train_examples_per_second": (
                progress.examples / progress.seconds if progress.seconds else None
            ),
            "wait_share": progress.wait_share,
        },
        "parameters": parameter_count(params),
        "best_step": progress.best_step,
        "versions": versions(),
        **choices,
    }
    if data.oracle:
        results["oracle"] = {
            split: {
                "auc": data.oracle[split]["auc"],
                "logloss": data.oracle[split]["logloss"],
                "coverage": oracle_coverage(metrics[split], data.oracle[split]),
            }
            for split in metrics
        }
    hosts.run_on_primary(lambda: _write(folder, results, progress, states))
    return results


def _write(
    folder: pathlib.Path,
    results: Mapping[str, Any],
    progress: Progress,
    states: Mapping[str, TaskMetrics],
) -> None:
    history = {"train": progress.train_losses, "valid": progress.evaluations}
    save_training_plot(history, folder / "training.png")
    save_calibration_plot(by_name(states), folder / "calibration.png")
    write_json(folder / "results.json", results)


def by_name(states: Mapping[str, TaskMetrics]) -> dict[str, BinaryMetrics]:
    """Metric states by split or, with several tasks, by ``SPLIT, TASK``."""
    return {
        split if len(state.states) == 1 else f"{split}, {task}": of_task
        for split, state in states.items()
        for task, of_task in state.states.items()
    }


def versions() -> dict[str, str]:
    """Versions of the packages that affect a result, and the devices that it ran on."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {"python": platform.python_version(), **found, "devices": device}


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the metrics of each split, and of each task if there are several, as aligned text."""
    names = (
        ("auc", "AUC"),
        ("pr_auc", "PR-AUC"),
        ("logloss", "logloss"),
        ("normalized_entropy", "norm. entropy"),
        ("calibration", "calibration"),
        ("expected_calibration_error", "ECE"),
    )
    if any("gauc" in values for values in metrics.values()):
        names = (*names, ("gauc", "GAUC"))
    rows: dict[str, Mapping[str, Any]] = {}
    for split, values in metrics.items():
        rows[f"{split}, mean of tasks" if "tasks" in values else split] = values
        rows |= {f"{split}, {task}": own for task, own in values.get("tasks", {}).items()}
    width = max(map(len, ("split  ", *rows))) + 1
    lines = [f"{'split':{width}}" + "".join(f"{title:>15}" for _, title in names) + f"{'rows':>12}"]
    for name, values in rows.items():
        cells = "".join(
            f"{values[key]:15.5f}" if key in values else f"{'-':>15}" for key, _ in names
        )
        lines.append(f"{name:{width}}{cells}{int(values['rows']):12,}")
    return "\n".join(lines)
