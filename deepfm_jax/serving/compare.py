"""Several models on the same rows, seeds and budget: who is better, and how sure that is."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from deepfm_jax.bootstrap import Resampled, bootstrap
from deepfm_jax.data.pipeline import PreparedData
from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.serving.comparison_report import save_comparison_plot
from deepfm_jax.serving.evaluate import score_split
from deepfm_jax.serving.predictor import Predictor
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.loop import train
from deepfm_jax.training.settings import Experiment

_LEVEL = 0.95
_BOOTSTRAP_SEED = 0
_LABEL_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One trained run: its ``results.json``, and the test rows as its best weights score them."""

    results: Mapping[str, Any]
    test: BinaryMetrics


def compare(
    experiments: Mapping[str, Experiment],
    seeds: Sequence[int],
    workdir: str | os.PathLike[str],
    *,
    baseline: str,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Trains each model with each seed in ``workdir/LABEL/SEED``, then compares them on ``test``.

    A run that is finished there already is not trained again, and one that was interrupted goes on,
    so models and seeds may be added later. ``workdir`` then holds ``results.json`` and
    ``comparison.png`` beside the runs.

    Args:
      experiments: What to train, by label; their own seed is not used.
      seeds: Of initialisation, shuffle and dropout; the same for every model.
      workdir: Folder of the comparison.
      baseline: Label of the model that the others are compared to.
      resamples: Draws of the bootstrap (see ``bootstrap``).

    Returns:
      The content of ``results.json``: under ``models``, by label, ``runs`` by seed, ``test`` with
      mean and standard deviation of each metric over seeds, and ``difference`` to the baseline in
      AUC and logloss with its interval.

    Raises:
      UserError: an unknown baseline, a label that is no name of a folder, models on different rows,
        a workdir of other runs, or what ``train`` raises.
    """
    folder = pathlib.Path(workdir)
    _check_request(experiments, seeds, folder, baseline)
    planned = {
        (label, seed): dataclasses.replace(experiment, seed=seed)
        for seed in seeds
        for label, experiment in experiments.items()
    }
    _check_data_and_workdirs(planned, folder)
    runs = {}
    # All models of one seed before the next seed: what is wrong with the last shows early.
    for number, ((label, seed), experiment) in enumerate(planned.items(), start=1):
        print(f"{label}, seed {seed}: run {number} of {len(planned)}")
        runs[label, seed] = _run(experiment, folder / label / str(seed))
    by_label = {label: [runs[label, seed] for seed in seeds] for label in experiments}
    results = _results(experiments, seeds, by_label, baseline, resamples)
    save_comparison_plot(results, folder / "comparison.png")
    write_json(folder / "results.json", results)
    return results


def _check_request(experiments, seeds, folder: pathlib.Path, baseline: str) -> None:
    if baseline not in experiments:
        raise UserError(f"baseline {baseline!r} is not compared; use one of {list(experiments)}")
    for label in experiments:
        if label in ("", "..") or pathlib.Path(label).name != label:
            raise UserError(f"label {label!r} names the folder of its runs; it may not be a path")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {list(seeds)}; give at least one, and each once")
    if (folder / "checkpoints").exists():
        raise UserError(
            f"workdir {folder} holds a single run; choose another --workdir for a comparison"
        )


def _check_data_and_workdirs(
    planned: Mapping[tuple[str, int], Experiment], folder: pathlib.Path
) -> None:
    """Raises here, before hours of training, what the last run would else raise at its start."""
    opened: dict[tuple[str, str, str], tuple[PreparedData, np.ndarray]] = {}
    first_label = next(label for label, _ in planned)
    for (label, seed), experiment in planned.items():
        place = (experiment.data.name, experiment.data.folder, experiment.data.label)
        if place not in opened:
            data = PreparedData(*place)
            opened[place] = data, _labels(data)
        data, labels = opened[place]
        # Not by fingerprint: the same rows may be encoded with crosses for one, without for others.
        if not np.array_equal(labels, next(iter(opened.values()))[1]):
            raise UserError(
                f"{label} reads other rows or labels ({place[0]!r} in {place[1]}) than "
                f"{first_label}; "
                "models are compared on the same rows only"
            )
        experiment.build_model(data.encoder)
        if (folder / label / str(seed)).is_dir():
            workdirs.claim(folder / label / str(seed), experiment, data.encoder)


def _labels(data: PreparedData) -> Float32[np.ndarray, "rows"]:
    """Labels of all splits in the order of their rows, with the number of rows of each split."""
    parts = [np.array([data.rows(split) for split in data.summaries], np.float32)]
    for split in data.summaries:
        for batch in data.batches(split, _LABEL_ROWS):
            parts.append(batch["labels"][batch["mask"] > 0, 0])
    return np.concatenate(parts)


def _run(experiment: Experiment, folder: pathlib.Path) -> _Run:
    results = train(experiment, folder)
    return _Run(results, score_split(Predictor(folder), "test"))


def _results(
    experiments: Mapping[str, Experiment],
    seeds: Sequence[int],
    runs: Mapping[str, Sequence[_Run]],
    baseline: str,
    resamples: int,
) -> dict[str, Any]:
    # All runs score the same rows in the same order, so the labels of one are those of all.
    first = runs[baseline][0]
    resampled = bootstrap(
        {label: np.stack([run.test.logits for run in runs[label]]) for label in runs},
        first.test.labels,
        weights=None if (first.test.weights == 1).all() else first.test.weights,
        resamples=resamples,
        seed=_BOOTSTRAP_SEED,
    )
    results = {
        "config": {
            label: {key: value for key, value in experiment.to_dict().items() if key != "seed"}
            for label, experiment in experiments.items()
        },
        "seeds": list(seeds),
        "baseline": baseline,
        "bootstrap": {"resamples": resamples, "seed": _BOOTSTRAP_SEED, "level": _LEVEL},
        "dataset": first.results["dataset"],
        "models": {
            label: {
                **_summary(seeds, runs[label]),
                "difference": None
                if label == baseline
                else {
                    metric: _difference(of_label[label], of_label[baseline])
                    for metric, of_label in resampled.items()
                },
            }
            for label in runs
        },
        "versions": first.results["versions"],
    }
    if "oracle" in first.results:
        oracle = first.results["oracle"]["test"]
        results["oracle"] = {metric: oracle[metric] for metric in ("auc", "logloss")}
        for label, of_label in runs.items():
            covered = [run.results["oracle"]["test"]["coverage"] for run in of_label]
            results["models"][label]["oracle_coverage"] = {
                metric: float(np.mean([run[metric] for run in covered])) for metric in covered[0]
            }
    return results


def _summary(seeds: Sequence[int], runs: Sequence[_Run]) -> dict[str, Any]:
    """One model's runs and their means; the standard deviation of one run is None."""
    test = [run.test.compute(split="test") for run in runs]
    rates = [run.results["throughput"]["train_examples_per_second"] for run in runs]
    return {
        "runs": {
            str(seed): {
                "metrics": {"valid": run.results["metrics"]["valid"], "test": metrics},
                "train_examples_per_second": rate,
                "best_step": run.results["best_step"],
            }
            for seed, run, metrics, rate in zip(seeds, runs, test, rates, strict=True)
        },
        "test": {
            metric: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
            for metric in test[0]
            for values in [[metrics[metric] for metrics in test]]
        },
        "parameters": runs[0].results["parameters"],
        "train_examples_per_second": None if None in rates else float(np.mean(rates)),
    }


def _difference(model: Resampled, baseline: Resampled) -> dict[str, Any]:
    difference = model - baseline
    low, high = difference.interval(_LEVEL)
    return {
        "mean": difference.estimate,
        "interval": [low, high],
        "separates": low > 0 or high < 0,
    }
