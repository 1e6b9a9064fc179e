"""Metrics of a trained model on prepared splits and on raw labelled rows."""

import os

from deepfm_jax.encoding.groups import decode_groups
from deepfm_jax.errors import UserError
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.serving.predictor import Predictor


def evaluate_split(predictor: Predictor, split: str) -> dict[str, float]:
    """Metrics on a split of the data set that the model was trained on.

    Raises:
      UserError: see ``score_split``.
    """
    return score_split(predictor, split).compute(split=split)


def score_split(predictor: Predictor, split: str) -> BinaryMetrics:
    """Logits and labels of a split of that data set, in the order of its rows.

    Raises:
      UserError: the prepared data set is gone, or has been prepared anew with another encoding.
    """
    settings = predictor.experiment.data
    data = PreparedData(settings.name, settings.folder, settings.label)
    if data.encoder.fingerprint() != predictor.encoder.fingerprint():
        raise UserError(
            f"data set {settings.name!r} in {settings.folder} has been prepared with another "
            "encoding since the model was trained; prepare it as before, or use --input"
        )
    batches = data.batches(split, predictor.experiment.loop.eval_batch_size, groups=True)
    states = [
        BinaryMetrics.from_batch(
            predictor.score(batch["ids"], batch.get("values")),
            batch["labels"][:, 0],
            batch["mask"],
            decode_groups(batch["groups"]) if "groups" in batch else None,
        )
        for batch in batches
    ]
    return BinaryMetrics.concatenate(states)


def evaluate_file(
    predictor: Predictor, path: str | os.PathLike[str], *, max_bad_rows: int = 0
) -> dict[str, float]:
    """Metrics on raw rows with the label that the model predicts; they need no other one.

    They need the column of weights, where the data set has one, and where they have its column of
    groups, the metrics have GAUC.

    Raises:
      UserError: see ``sources.read_tables``; or rows of one class only.
    """
    encoder, schema = predictor.encoder, predictor.encoder.schema
    label = schema.label_named(predictor.experiment.data.label).name
    states = []
    for table in read_tables(path, schema, max_bad_rows=max_bad_rows, labelled=None):
        for name, role in ((label, "label"), (schema.weight, "weight")):
            if name is not None and name not in table.column_names:
                raise UserError(f"{path}: column {name!r}, the {role}, is missing")
        groups = encoder.groups(table)
        states.append(
            BinaryMetrics.from_batch(
                predictor.logits(table),
                table[label].to_numpy(),
                encoder.weights(table),
                None if groups is None else decode_groups(groups),
            )
        )
    return BinaryMetrics.concatenate(states).compute(split=os.fspath(path))
