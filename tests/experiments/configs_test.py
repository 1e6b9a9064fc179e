"""Each shipped config, shrunk to one step on a small data set."""

import dataclasses
import functools
import importlib.util
import pathlib

import pytest
from ml_collections import ConfigDict

from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare, split_summaries
from deepfm_jax.distributed.partitioning import Partitioning
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.models import MODELS, build_model
from deepfm_jax.training.loop import train
from deepfm_jax.training.settings import DataSettings, Experiment, LoopSettings, OptimizerSettings
from experiments.configs import every_setting
from tests import click_logs

CONFIGS = sorted(
    path
    for path in (pathlib.Path(__file__).parents[2] / "experiments/configs").glob("*.py")
    if path.stem not in ("__init__", "plateau_recipe", "every_setting")
)
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"demo", "criteo", "frappe", "tabular"}


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        (lambda: every_setting.data_settings("demo"), lambda: DataSettings("demo")),
        (every_setting.optimizer_settings, OptimizerSettings),
        (every_setting.loop_settings, LoopSettings),
        (every_setting.partitioning_settings, Partitioning),
    ],
)
def test_every_setting_is_listed_with_the_default_of_the_library(listed, kind):
    assert ConfigDict(listed()).to_dict() == dataclasses.asdict(kind())


@pytest.mark.parametrize("name", MODELS)
def test_every_hyperparameter_is_listed_with_the_default_of_the_model(name):
    listed = ConfigDict(every_setting.model_settings(name)).to_dict()
    assert listed.pop("name") == name
    model, default = build_model(name, (4, 3), listed), build_model(name, (4, 3), {})
    assert model == default
    assert listed.keys() == {field.name for field in dataclasses.fields(MODELS[name])} - {
        "field_dims",
        "crosses",
        "parent",
        "name",
    }


@every_config
def test_the_header_says_how_to_run_it_and_whence_it_comes(path):
    header = load(path).__doc__
    for part in ("python -m experiments.train", "Data:", "Expected:", "Time:", "Source"):
        assert part in header


def runs():
    """Each config with each model that it has settings for; ``""`` is its own choice."""
    return [
        pytest.param(path, model, id=f"{path.stem}:{model}" if model else path.stem)
        for path in CONFIGS
        for model in ("", *getattr(load(path), "MODELS", ()))
    ]


SMALL = {"train": 200, "valid": 100, "test": 100}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Prepares a small copy of a data set, once; gives the folder."""

    @functools.cache
    def prepared_in(name):
        source, out = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp(f"{name}_prepared")
        options = BuildOptions()
        if name == "frappe":
            click_logs.write_frappe(source, SMALL)
        elif name == "criteo":
            click_logs.write_criteo(source, SMALL)
        elif name == "movielens":
            click_logs.write_movielens(source)
            options = BuildOptions(history_length=5)
        elif name == "criteo_1tb":
            click_logs.write_criteo_days(source, 20, last=200)
            options = BuildOptions(hash_buckets=50)
        elif name == "tabular":
            click_logs.write_frappe(source, {"train": 400})
            source /= "train.csv"
            options = BuildOptions(schema=infer_schema(source).schema.to_dict())
        else:
            source, options = None, BuildOptions(rows=1000)
        prepare(name, out, source=source, options=options)
        return out

    return prepared_in


@pytest.mark.parametrize(("path", "model"), runs())
def test_one_step_runs(path, model, folder_of, tmp_path):
    config = load(path).get_config(*filter(None, [model]))
    name = config.data.name
    config.data.folder = str(folder_of(name))
    rows = split_summaries(dataset_folder(name, config.data.folder))["train"].rows
    batch_size = -(-rows // 8) * 8  # All of them, in equal parts for the devices.
    for stage in (config, *([config.pretraining] if "pretraining" in config else [])):
        stage.loop.epochs = 1
        stage.loop.batch_size = stage.loop.eval_batch_size = batch_size
    results = train(Experiment.from_mapping(config.to_dict()), tmp_path)
    assert results["best_step"] == 1
    assert 0.0 <= results["metrics"]["test"]["auc"] <= 1.0
    assert ("oracle" in results) == (name == "synthetic")
