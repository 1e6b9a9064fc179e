"""Compares several models on the same rows and seeds, each with its own settings.

``deepfm-jax compare --config=RECIPE --models=lr,fm,deepfm --baseline=deepfm`` prints tables and
draws a plot. The config is read once for each model, as ``RECIPE:MODEL``, and
``--config.KEY=VALUE`` changes it for all of them; ``--config.loop.epochs`` also limits the epochs
of a pretraining stage. Each run lies in ``WORKDIR/MODEL/SEED`` and is trained once: a comparison
that is started again, possibly with more models or seeds, reuses the existing runs. Name all
models and seeds again, because the report covers only those named. A model that fails is left out
of the report, and the exit status is 2.
"""

import inspect
import pathlib

from absl import flags
from ml_collections import config_flags

from deepfm_jax.errors import UserError

from . import config_files, launcher

_CONFIG = launcher.define_config()
flags.declare_key_flag("config")
_MODELS = flags.DEFINE_list("models", None, "Models to compare; defaults to all in the config.")
_SEEDS = flags.DEFINE_list("seeds", ["2021", "190034", "992817"], "Seeds of each model.")
_BASELINE = flags.DEFINE_string("baseline", None, "Baseline model; defaults to the first one.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the comparison; defaults to runs/compare-CONFIG."
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Draws of the bootstrap.", lower_bound=100)


def main() -> None:
    """Prepares simulated data if the config asks for them, trains, compares and prints."""
    seeds = _seeds()
    path = _config_path()
    experiments = _experiments(path)
    # These imports take seconds, so they come last: a mistake in the flags is reported at once.
    from deepfm_jax.dataclass_data import from_data
    from deepfm_jax.datasets import BUILDERS
    from deepfm_jax.datasets.options import BuildOptions
    from deepfm_jax.datasets.prepare import dataset_folder, prepare
    from deepfm_jax.evaluation.compare import compare
    from deepfm_jax.evaluation.comparison_report import comparison_tables, failures

    for experiment in experiments.values():
        data = experiment.data
        dataset_folder(data.name, data.folder)  # Raises on an unknown name.
        if not BUILDERS[data.name].NEEDS_SOURCE:
            options = from_data(BuildOptions, data.options, "config.data.options")
            prepare(data.name, data.folder, options=options)
    workdir = pathlib.Path(_WORKDIR.value or f"runs/compare-{path.stem}")
    baseline = _BASELINE.value or next(iter(experiments))
    results = compare(experiments, seeds, workdir, baseline=baseline, resamples=_RESAMPLES.value)
    print(comparison_tables(results))
    print(f"results.json and comparison.png are in {workdir}")
    if results["failed"]:
        raise UserError(failures(results["failed"]))


def _config_path() -> pathlib.Path:
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    if ":" in name:
        raise UserError(f"--config={name} names a model; name the models to compare with --models")
    return config_files.split(name)[0]


def _experiments(path: pathlib.Path):
    """The experiment of each model, with the command line's changes applied to all."""
    from deepfm_jax.training.settings import Experiment

    module = config_files.load(path)
    if not inspect.signature(module.get_config).parameters:
        raise UserError(f"{path} has settings for one model; its get_config() takes no model")
    models = _MODELS.value or list(getattr(module, "MODELS", ()))
    if not models:
        raise UserError(f"{path} lists no MODELS; name the models to compare with --models")
    changes = config_flags.get_override_values(flags.FLAGS["config"])
    for key, flag in (("seed", "seeds"), ("model.name", "models")):
        if key in changes:
            raise UserError(f"--config.{key} cannot be changed for all models; use --{flag}")
    experiments = {}
    for model in models:
        if model in experiments:
            raise UserError(f"--models names {model!r} twice")
        try:
            config = module.get_config(model).lock()
        except ValueError as error:
            raise UserError(f"{path}: {error}") from None
        launcher.change(config, changes, model)
        experiments[model] = Experiment.from_mapping(config.to_dict())
    return experiments


def _seeds() -> list[int]:
    try:
        return [int(seed) for seed in _SEEDS.value]
    except ValueError:
        raise UserError(f"--seeds={','.join(_SEEDS.value)}: seeds are whole numbers") from None


if __name__ == "__main__":
    launcher.run(main)
