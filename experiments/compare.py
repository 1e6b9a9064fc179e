"""Several models on the same rows and seeds, each with its own settings: tables and a picture.

``deepfm-jax compare --config=RECIPE --models=lr,fm,deepfm --baseline=deepfm``. The config is read
once for each model, as ``RECIPE:MODEL``, and ``--config.KEY=VALUE`` changes it for all of them;
``--config.loop.epochs`` is also the most that a stage before may have. Each run lies in
``WORKDIR/MODEL/SEED`` and is trained once: started again, also with more models or seeds, the
comparison goes on from what is there. Name all of them then: the report is of those named. A model
that fails is left out of it, and the exit status is 2.
"""

import inspect
import pathlib

from absl import flags
from ml_collections import config_flags

from deepfm_jax.errors import UserError

from . import config_files, launcher

_CONFIG = launcher.define_config()
flags.declare_key_flag("config")
_MODELS = flags.DEFINE_list("models", None, "Models to compare; all of the config when left out.")
_SEEDS = flags.DEFINE_list("seeds", ["2021", "190034", "992817"], "Seeds of each model.")
_BASELINE = flags.DEFINE_string("baseline", None, "Compare to it; the first model when left out.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the comparison; runs/compare-CONFIG when left out."
)
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Draws of the bootstrap.", lower_bound=100)


def main() -> None:
    """Prepares simulated data where the config asks for them, trains, compares and prints."""
    seeds = _seeds()
    path = _config_path()
    experiments = _experiments(path)
    # Only now what takes seconds to import: a mistake in the flags is told at once.
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
    """The experiment of each model, with the changes of the command line made to all."""
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
            raise UserError(f"--config.{key} is no change to all models; use --{flag}")
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
