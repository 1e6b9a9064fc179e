"""Evaluates a trained model on prepared splits and on files of labelled rows."""

import os
from typing import Any

import numpy as np

from deepfm_jax.datasets.prepare import dataset_folder
from deepfm_jax.encoding.groups import decode_groups
from deepfm_jax.errors import UserError
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.metrics import TaskMetrics
from deepfm_jax.readers.paths import find_files
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.serving.predictor import Predictor
from deepfm_jax.training.network import inputs_of


def evaluate_split(
    predictor: Predictor, split: str, folder: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Metrics on a split of the data set that the model was trained on; see ``score_split``."""
    return score_split(predictor, split, folder).compute(split=split)


def score_split(
    predictor: Predictor, split: str, folder: str | os.PathLike[str] | None = None
) -> TaskMetrics:
    """Logits and labels of a split of that data set, in the order of its examples.

    Args:
      predictor: The trained model.
      split: ``"train"``, ``"valid"`` or ``"test"``.
      folder: Folder of prepared data sets; None for the folder that the run read.

    Raises:
      UserError: the prepared data set is missing, or was prepared again with another encoding.
    """
    settings = predictor.experiment.data
    folder = settings.folder if folder is None else folder
    path = dataset_folder(settings.name, folder)
    if not path.is_dir():
        raise UserError(
            f"{path}: data set {settings.name!r} of the run does not exist; if it has moved, pass "
            "the folder of prepared data sets as --data_folder"
        )
    data = PreparedData(settings.name, folder, settings.labels)
    if data.encoder.fingerprint() != predictor.encoder.fingerprint():
        raise UserError(
            f"data set {settings.name!r} in {folder} was prepared with another encoding after "
            "the model was trained; prepare it as before, or use --input"
        )
    states = [
        TaskMetrics.from_batch(
            predictor.tasks,
            predictor.score(inputs_of(batch)),
            batch["labels"],
            batch["mask"],
            decode_groups(batch["groups"]) if "groups" in batch else None,
        )
        for batch in data.batches(split, predictor.batch_size, groups=True)
    ]
    return TaskMetrics.concatenate(states)


def evaluate_file(
    predictor: Predictor, path: str | os.PathLike[str], *, max_bad_rows: int = 0
) -> dict[str, Any]:
    """Metrics on rows of files; only the labels that the model predicts are needed.

    The column of weights is needed too if the data set has one. With the column of groups, the
    metrics include GAUC.

    Raises:
      UserError: a needed column is missing, the rows have one class only, or see
        ``sources.read_tables``.
    """
    encoder, schema = predictor.encoder, predictor.encoder.schema
    needed = [(label, "label") for label in predictor.tasks]
    if schema.weight is not None:
        needed.append((schema.weight, "weight"))
    states = []
    for table in read_tables(path, schema, max_bad_rows=max_bad_rows, labelled=None):
        for name, role in needed:
            if name not in table.column_names:
                raise UserError(f"{path}: column {name!r}, the {role}, is missing")
        groups = encoder.groups(table)
        states.append(
            TaskMetrics.from_batch(
                predictor.tasks,
                predictor.logits(table),
                np.stack([table[name].to_numpy() for name in predictor.tasks], axis=1),
                encoder.weights(table),
                None if groups is None else decode_groups(groups),
            )
        )
    return TaskMetrics.concatenate(states).compute(split=os.fspath(path))


def input_name(path: str | os.PathLike[str]) -> str:
    """A name for the files of a path or pattern, usable within a file name.

    One file gives its own name; seven files give ``day-1.csv_and_6_more`` after the first.

    Raises:
      UserError: see ``paths.find_files``.
    """
    files = find_files(path)
    return files[0].name if len(files) == 1 else f"{files[0].name}_and_{len(files) - 1}_more"
