"""Compares models on the same examples and seeds, with confidence intervals."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepfm_jax.errors import PreemptedError, UserError
from deepfm_jax.evaluation.bootstrap import Resampled, bootstrap
from deepfm_jax.evaluation.comparison_checks import (
    check_data_and_runs,
    check_request,
    finished_but_not_named,
)
from deepfm_jax.evaluation.comparison_report import failures, save_comparison_plot
from deepfm_jax.evaluation.evaluate import score_split
from deepfm_jax.files import write_json
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.metrics import TaskMetrics, flat_metrics
from deepfm_jax.serving.predictor import Predictor
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import Checkpoints
from deepfm_jax.training.compute_dtype import print_choice, with_compute_dtype
from deepfm_jax.training.loop import train
from deepfm_jax.training.settings import Experiment

_LEVEL = 0.95
_BOOTSTRAP_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One trained run.

    Attributes:
      results: The content of its ``results.json``.
      scored: The test examples, scored with its best weights.
      metrics: Flat metrics of ``scored`` (see ``metrics.flat_metrics``).
      epochs: Passes over the training examples.
      stage_epochs: Passes of the pretraining stage; None without one, or if it was deleted.
    """

    results: Mapping[str, Any]
    scored: TaskMetrics
    metrics: Mapping[str, float]
    epochs: float
    stage_epochs: float | None


def compare(
    experiments: Mapping[str, Experiment],
    seeds: Sequence[int],
    workdir: str | os.PathLike[str],
    *,
    baseline: str,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Trains each model with each seed in ``workdir/LABEL/SEED``, then compares them on ``test``.

    All models share examples and seeds. Each has its own settings, and so its own budget; the
    results report the epochs it was trained for.

    Finished runs in ``workdir`` are not trained again and interrupted ones are resumed, so models
    and seeds can be added later. Name the earlier ones again then: the report covers only those
    named, replaces the previous report, and lists the finished runs that it leaves out. Runs must
    have the requested settings, including those of the loop. ``results.json`` and
    ``comparison.png`` are written to ``workdir`` beside the runs.

    A model that fails, for example by a loss that is not finite, is left out with all its seeds and
    named in the report; the others are still trained and compared.

    Args:
      experiments: What to train, by label; their own seeds are not used.
      seeds: Seeds of initialisation, shuffle and dropout, below 2^32; the same for every model.
      workdir: Folder of the comparison.
      baseline: Label of the model that the others are compared with.
      resamples: Draws of the bootstrap (see ``bootstrap``), at least 100.

    Returns:
      The content of ``results.json``. ``models`` has, by label, ``runs`` by seed, ``test`` with
      mean and standard deviation of each metric over seeds, ``epochs`` averaged over seeds, and
      ``difference`` from the baseline in AUC and logloss with its interval; whether it
      ``separates`` is None with one seed, which cannot show the spread between seeds. ``failed``
      has the ``seed`` and the ``error`` by label; ``left_out`` has, by label, the seeds of finished
      runs in ``workdir`` that were not named.

    Raises:
      UserError: before anything is trained, the baseline is unknown, a label is not a valid folder
        name, a seed or ``resamples`` is out of range, the models read different rows, the workdir
        holds other runs, or ``train`` would raise at its start. After training, the baseline
        failed.
    """
    folder = pathlib.Path(workdir)
    check_request(experiments, seeds, folder, baseline, resamples)
    experiments = {
        label: _with_one_compute_dtype(label, experiment, seeds, folder)
        for label, experiment in experiments.items()
    }
    check_data_and_runs(experiments, seeds, folder)
    runs, failed = _runs(experiments, seeds, folder)
    if baseline in failed:
        raise UserError(
            f"{failures(failed)}; nothing is compared without the baseline: choose another with "
            "--baseline"
        )
    by_label = {
        label: [runs[label, seed] for seed in seeds] for label in experiments if label not in failed
    }
    results = _results(experiments, seeds, by_label, baseline, resamples)
    results["failed"] = failed
    results["left_out"] = finished_but_not_named(experiments, seeds, folder)
    save_comparison_plot(results, folder / "comparison.png")
    write_json(folder / "results.json", results)
    return results


def _with_one_compute_dtype(
    label: str, experiment: Experiment, seeds: Sequence[int], folder: pathlib.Path
) -> Experiment:
    """The experiment with one ``compute_dtype`` for all seeds, chosen here if it is ``auto``."""
    folders = [folder / label / str(seed) for seed in seeds]
    experiment, choice = with_compute_dtype(experiment, folders)
    print_choice(choice, f"{label}: ")
    return experiment


def _runs(
    experiments: Mapping[str, Experiment], seeds: Sequence[int], folder: pathlib.Path
) -> tuple[dict[tuple[str, int], _Run], dict[str, dict[str, Any]]]:
    """The runs by label and seed, and the failures by label."""
    # All models of one seed come before the next seed, so that every model's faults show early.
    planned = [(label, seed) for seed in seeds for label in experiments]
    runs, failed = {}, {}
    for number, (label, seed) in enumerate(planned, start=1):
        run = f"{label}, seed {seed}: run {number} of {len(planned)}"
        if label in failed:
            print(f"{run} is skipped because seed {failed[label]['seed']} failed")
            continue
        print(run)
        experiment = dataclasses.replace(experiments[label], seed=seed)
        try:
            runs[label, seed] = _run(experiment, folder / label / str(seed))
        except PreemptedError:
            raise
        except UserError as error:
            print(f"{label}, seed {seed} failed: {error}")
            failed[label] = {"seed": seed, "error": str(error)}
    return runs, failed


def _run(experiment: Experiment, folder: pathlib.Path) -> _Run:
    results = train(experiment, folder)
    scored = score_split(Predictor(folder), "test")
    stage, stage_folder = experiment.first_stage, folder / "pretraining"
    stage_epochs = None
    # A finished run no longer needs its pretraining stage, which may have been deleted.
    if stage is not None and workdirs.has_checkpoints(stage_folder):
        stage_epochs = _epochs(stage, stage_folder)
    metrics = dict(flat_metrics(scored.compute(split="test")))
    return _Run(results, scored, metrics, _epochs(experiment, folder), stage_epochs)


def _epochs(experiment: Experiment, folder: pathlib.Path) -> float:
    """Passes a run made over the training examples; patience may end one halfway."""
    with Checkpoints(folder) as checkpoints:
        last = checkpoints.last_step
        assert last is not None
        progress = checkpoints.progress(last)
    settings = experiment.data
    data = PreparedData(settings.name, settings.folder, settings.labels)
    batch_size, rate = experiment.loop.batch_size, settings.negative_rate
    return progress.epoch + progress.batch / data.steps_per_epoch("train", batch_size, rate)


def _results(
    experiments: Mapping[str, Experiment],
    seeds: Sequence[int],
    runs: Mapping[str, Sequence[_Run]],
    baseline: str,
    resamples: int,
) -> dict[str, Any]:
    first = runs[baseline][0]
    resampled = _resampled(runs, baseline, resamples)
    results = {
        "config": {
            label: {key: value for key, value in experiment.to_dict().items() if key != "seed"}
            for label, experiment in experiments.items()
        },
        "seeds": list(seeds),
        "baseline": baseline,
        "bootstrap": {"resamples": resamples, "seed": _BOOTSTRAP_SEED, "level": _LEVEL},
        "dataset": first.results["dataset"],
        "metrics": list(resampled),
        "models": {
            label: {
                **_summary(seeds, runs[label]),
                "difference": None
                if label == baseline
                else {
                    metric: _difference(of_label[label], of_label[baseline], len(seeds))
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


def _resampled(
    runs: Mapping[str, Sequence[_Run]], baseline: str, resamples: int
) -> dict[str, Mapping[str, Resampled]]:
    """Resamples by metric and model; several tasks have ``TASK/auc`` and ``TASK/logloss``."""
    resampled: dict[str, Mapping[str, Resampled]] = {}
    # All runs score the same examples in the same order, so they share their labels.
    states = runs[baseline][0].scored.states
    for task, first in states.items():
        of_task = bootstrap(
            {
                label: np.stack([run.scored.states[task].logits for run in of_label])
                for label, of_label in runs.items()
            },
            first.labels,
            weights=None if (first.weights == 1).all() else first.weights,
            resamples=resamples,
            seed=_BOOTSTRAP_SEED,
        )
        prefix = f"{task}/" if len(states) > 1 else ""
        resampled |= {f"{prefix}{metric}": models for metric, models in of_task.items()}
    return resampled


def _summary(seeds: Sequence[int], runs: Sequence[_Run]) -> dict[str, Any]:
    """Runs of one model and their means; the standard deviation of a single run is None."""
    test = [run.metrics for run in runs]
    rates = [run.results["throughput"]["train_examples_per_second"] for run in runs]
    stages = [run.stage_epochs for run in runs if run.stage_epochs is not None]
    return {
        "runs": {
            str(seed): {
                "metrics": {
                    "valid": dict(flat_metrics(run.results["metrics"]["valid"])),
                    "test": metrics,
                },
                "train_examples_per_second": rate,
                "best_step": run.results["best_step"],
                "epochs": run.epochs,
                "pretraining_epochs": run.stage_epochs,
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
        "epochs": float(np.mean([run.epochs for run in runs])),
        "pretraining_epochs": float(np.mean(stages)) if stages else None,
        "train_examples_per_second": None if None in rates else float(np.mean(rates)),
    }


def _difference(model: Resampled, baseline: Resampled, seeds: int) -> dict[str, Any]:
    difference = model - baseline
    low, high = difference.interval(_LEVEL)
    return {
        "mean": difference.estimate,
        "interval": [low, high],
        # With one seed, the interval covers the chance of the examples only.
        "separates": low > 0 or high < 0 if seeds > 1 else None,
    }
