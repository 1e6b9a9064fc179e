"""Checks a comparison before hours of training."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from deepfm_jax.errors import UserError
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.training.loop import check_runs
from deepfm_jax.training.settings import Experiment

# With fewer resamples, the ends of a 95% interval rest on one or two of them.
_MIN_RESAMPLES = 100
_SEEDS = 1 << 32
# Files that a comparison writes beside the folders of its models, and the mark of a single run.
_TAKEN = ("results.json", "comparison.png", "checkpoints")
_LABEL_ROWS = 1 << 16


def check_request(
    experiments: Mapping[str, Experiment],
    seeds: Sequence[int],
    folder: pathlib.Path,
    baseline: str,
    resamples: int,
) -> None:
    """Checks everything that needs neither data nor models; see ``compare``.

    Raises:
      UserError: the baseline, a label, a seed, the number of resamples or the workdir is invalid.
    """
    if baseline not in experiments:
        raise UserError(f"baseline {baseline!r} is not compared; use one of {list(experiments)}")
    for label in experiments:
        _check_label(label)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds are {list(seeds)}; give at least one, without duplicates")
    for seed in seeds:
        if not 0 <= seed < _SEEDS:
            raise UserError(f"seed {seed} must be at least 0 and less than 2^32")
    if resamples < _MIN_RESAMPLES:
        raise UserError(f"resamples={resamples} must be at least {_MIN_RESAMPLES}")
    if (folder / "checkpoints").exists():
        raise UserError(
            f"workdir {folder} holds a single run; choose another --workdir for a comparison"
        )


def _check_label(label: str) -> None:
    name = f"label {label!r} names the folder of its runs"
    if not label or set(label) & set("/\\") or label.startswith("."):
        raise UserError(f"{name}; it must not be a path or begin with a dot")
    if label != label.strip() or not label.isprintable():
        raise UserError(f"{name}; it must not have surrounding spaces or unprintable characters")
    if label.lower() in _TAKEN:
        raise UserError(f"{name}; {', '.join(_TAKEN)} are reserved")


def check_data_and_runs(
    experiments: Mapping[str, Experiment], seeds: Sequence[int], folder: pathlib.Path
) -> None:
    """Raises now what a later run would raise at its start; see ``compare``. Writes nothing.

    Raises:
      UserError: the models read different rows, or ``check_runs`` raises; the label comes first.
    """
    labels_at: dict[tuple[str, str, tuple[str, ...]], np.ndarray] = {}
    first_label = next(iter(experiments))
    for label, experiment in experiments.items():
        data = experiment.data
        place = (data.name, data.folder, tuple(data.labels))
        try:
            if place not in labels_at:
                labels_at[place] = _labels(PreparedData(*place))
            check_runs(experiment, {seed: folder / label / str(seed) for seed in seeds})
        except UserError as error:
            raise UserError(f"{label}: {error}") from None
        # Not by fingerprint: the same rows may be encoded with crosses for only some models.
        if not np.array_equal(labels_at[place], next(iter(labels_at.values())), equal_nan=True):
            raise UserError(
                f"{label} reads other rows or labels ({data.name!r} in {data.folder}) than "
                f"{first_label}; models can only be compared on the same rows"
            )


def _labels(data: PreparedData) -> Float32[np.ndarray, "numbers"]:
    """The number of rows of each split, then their labels in order."""
    parts = [np.array([data.rows(split) for split in data.summaries], np.float32)]
    for split in data.summaries:
        for batch in data.batches(split, _LABEL_ROWS):
            parts.append(batch["labels"][batch["mask"] > 0].reshape(-1))
    return np.concatenate(parts)


def finished_but_not_named(
    experiments: Mapping[str, Experiment], seeds: Sequence[int], folder: pathlib.Path
) -> dict[str, list[int]]:
    """Seeds, by label, of the finished runs in a comparison's workdir that are not requested."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("*/*/results.json"):
        label, seed = path.parts[-3:-1]
        if seed.isdecimal() and not (label in experiments and int(seed) in seeds):
            found.setdefault(label, []).append(int(seed))
    return {label: sorted(found[label]) for label in sorted(found)}
