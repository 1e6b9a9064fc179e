"""Trains a model: ``deepfm-jax train --config=RECIPE --workdir=DIR``.

With no flags it runs the embedded demo: it simulates a click log, trains DeepFM on it and reports
how close it came to the best possible model. When started again on the same workdir, training
continues from the last checkpoint. A finished run continues if ``--config.loop.epochs`` is larger
than before; under the schedule ``warmup_cosine`` its learning rate then jumps back up.
``--warm_start=WORKDIR`` starts from the weights of an earlier run, whose encoder ``prepare
--extend_from`` has extended. ``--pretrained_vectors=COLUMN=FILE`` initializes the rows of a
column's values with given vectors, and ``--frozen_vectors=COLUMN=FILE`` also keeps them fixed.
"""

import dataclasses
import os
import pathlib

from absl import flags
from ml_collections import config_flags

from . import config_files, launcher, multihost

_CONFIG = launcher.define_config("demo")
flags.declare_key_flag("config")
flags.adopt_module_key_flags(multihost)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; defaults to runs/CONFIG-LABEL.")
_WARM_START = flags.DEFINE_string(
    "warm_start", None, "Workdir of an earlier run from whose weights this one starts."
)
_VECTORS = flags.DEFINE_multi_string(
    "pretrained_vectors", [], "COLUMN=FILE: Parquet of first vectors for the column's values."
)
_FROZEN = flags.DEFINE_multi_string(
    "frozen_vectors", [], "COLUMN=FILE: the same, for vectors that training keeps fixed."
)


def main() -> None:
    """Prepares simulated data if the config asks for them, then trains and reports."""
    with multihost.job():
        _train()


def _train() -> None:
    from deepfm_jax.datasets import BUILDERS
    from deepfm_jax.distributed import hosts
    from deepfm_jax.training.loop import train
    from deepfm_jax.training.settings import Experiment

    experiment = Experiment.from_mapping(_CONFIG.value.to_dict())
    if _WARM_START.value is not None:
        earlier = os.path.abspath(_WARM_START.value)
        experiment = dataclasses.replace(experiment, warm_start=earlier)
    vectors = {**experiment.pretrained_vectors, **_vectors(experiment.pretrained_vectors)}
    experiment = dataclasses.replace(experiment, pretrained_vectors=vectors)
    config = config_flags.get_config_filename(flags.FLAGS["config"])
    default = config_files.default_workdir(config, experiment.model["name"])
    workdir = pathlib.Path(_WORKDIR.value or default)
    if not BUILDERS[experiment.data.name].NEEDS_SOURCE:
        hosts.run_on_primary(lambda: _prepare(experiment.data))
    results = train(experiment, workdir)
    if hosts.is_primary():
        _report(results, workdir)


def _vectors(config):
    """Settings of the command line's pretrained vectors, by column.

    A flag gives the file and whether its vectors are frozen; the rest comes from the config.
    """
    from deepfm_jax.errors import UserError
    from deepfm_jax.readers.paths import absolute
    from deepfm_jax.training.settings import PretrainedVectors

    vectors: dict[str, PretrainedVectors] = {}
    for flag, given in (("pretrained_vectors", _VECTORS.value), ("frozen_vectors", _FROZEN.value)):
        for text in given:
            column, _, file = text.partition("=")
            if not column or not file:
                raise UserError(f"--{flag}={text}: give COLUMN=FILE")
            if column in vectors:
                raise UserError(f"--{flag}={text}: column {column!r} has vectors already")
            changes = {"file": absolute(file), "tuned": flag != "frozen_vectors"}
            there = config.get(column, PretrainedVectors(file))
            vectors[column] = dataclasses.replace(there, **changes)
    return vectors


def _prepare(data) -> None:
    from deepfm_jax.dataclass_data import from_data
    from deepfm_jax.datasets.options import BuildOptions
    from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
    from deepfm_jax.encoding.encoder import Encoder

    options = from_data(BuildOptions, data.options, "config.data.options")
    summaries = prepare(data.name, data.folder, options=options)
    folder = dataset_folder(data.name, data.folder)
    print(describe(summaries, Encoder.load(folder), folder))


def _report(results: dict, workdir: pathlib.Path) -> None:
    from deepfm_jax.training.report import metrics_table

    print(metrics_table(results["metrics"]))
    for split, oracle in results.get("oracle", {}).items():
        coverage = oracle["coverage"]
        print(
            f"{split}: the best possible AUC is {oracle['auc']:.5f} and logloss "
            f"{oracle['logloss']:.5f}; of the way there from the base rate, the model covers "
            f"{coverage['auc']:.1%} (AUC) and {coverage['logloss']:.1%} (logloss)"
        )
    print(f"results.json, training.png and calibration.png are in {workdir}")


if __name__ == "__main__":
    launcher.run(main)
