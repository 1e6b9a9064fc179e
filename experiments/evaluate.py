"""Measures a trained model on a split or on raw labelled rows.

``deepfm-jax evaluate --workdir=DIR [--split=test | --input=FILE]`` prints the metrics and
writes ``evaluation_SPLIT.json`` or ``evaluation_FILE.json`` into the workdir.
"""

import pathlib

from absl import flags

from . import launcher

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.", required=True)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "Split to measure.")
_INPUT = flags.DEFINE_string("input", None, "Raw labelled rows to measure instead of a split.")
_FOLDER = flags.DEFINE_string(
    "data_folder", None, "Folder of prepared data sets, if it has moved since training."
)
_MAX_BAD_ROWS = flags.DEFINE_integer(
    "max_bad_rows", 0, "Bad rows of --input to skip, count and report.", lower_bound=0
)


def main() -> None:
    """Evaluates the model and prints its metrics."""
    from deepfm_jax.evaluation.evaluate import evaluate_file, evaluate_split, input_name
    from deepfm_jax.files import write_json
    from deepfm_jax.serving.predictor import Predictor
    from deepfm_jax.training.report import metrics_table

    predictor = Predictor(_WORKDIR.value)
    if _INPUT.value:
        name = input_name(_INPUT.value)
        metrics = evaluate_file(predictor, _INPUT.value, max_bad_rows=_MAX_BAD_ROWS.value)
    else:
        name = _SPLIT.value
        metrics = evaluate_split(predictor, name, _FOLDER.value)
    print(metrics_table({name: metrics}))
    write_json(
        pathlib.Path(_WORKDIR.value) / f"evaluation_{name}.json",
        {"config": predictor.experiment.to_dict(), "metrics": {name: metrics}},
    )


if __name__ == "__main__":
    launcher.run(main)
