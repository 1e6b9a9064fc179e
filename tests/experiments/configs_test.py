"""Every shipped config on a small data set, shrunk to one step."""

import dataclasses
import functools

import chex
import jax
import pytest

from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare, split_summaries
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.models import MODELS, build_model
from deepfm_jax.training.loop import train
from deepfm_jax.training.settings import DataSettings, Experiment
from deepfm_jax.training.state import create_state
from deepfm_jax.training.step import make_train_step
from deepfm_jax.training.trainer import Trainer
from experiments import config_files
from experiments.recipe import complete
from tests import click_logs

CONFIGS = list(config_files.recipes().values())
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"demo", "criteo", "frappe", "tabular"}


def flat(values, path=""):
    """Keys of nested settings; an empty mapping counts as one key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def test_a_config_has_every_setting_with_the_default_of_the_library():
    config = complete(data={"name": "frappe"}, model={"name": "lr"}).to_dict()
    experiment = Experiment.from_mapping(config)
    assert experiment.to_dict() == {
        **Experiment(DataSettings("frappe"), {"name": "lr"}).to_dict(),
        "model": config["model"],
        "head": {"name": ""},
    }
    assert set(flat(experiment.to_dict())) == set(flat(config))


@pytest.mark.parametrize("name", MODELS)
def test_every_hyperparameter_is_listed_with_the_default_of_the_model(name):
    listed = complete(data={"name": "frappe"}, model={"name": name}).model.to_dict()
    assert listed.pop("name") == name
    model, default = build_model(name, (4, 3), listed), build_model(name, (4, 3), {})
    assert model == default
    assert listed.keys() == {field.name for field in dataclasses.fields(MODELS[name])} - {
        "field_dims",
        "parent",
        "name",
    }


def test_lists_and_keyword_arguments_are_texts_that_a_flag_can_set():
    config = complete(data={"name": "frappe"}, model={"name": "lr"})
    config.data.labels = "click,order"
    config.optimizer.options = "b1=0.8"
    config.optimizer.rows.options = "eps=1e-6"
    config.optimizer.l1.first_order = 0.5
    experiment = Experiment.from_mapping(config.to_dict())
    assert experiment.data.labels == ("click", "order")
    assert experiment.optimizer.options == {"b1": 0.8}
    assert experiment.optimizer.rows.options == {"eps": 1e-6}
    assert experiment.optimizer.l1.first_order == 0.5


@every_config
def test_the_header_says_how_to_run_it_and_whence_it_comes(path):
    header = config_files.load(path).__doc__
    for part in ("deepfm-jax train", "Data:", "Expected:", "Time:", "Source"):
        assert part in header


def runs():
    """Each config with each model that it has settings for; ``""`` is its own choice."""
    for path in CONFIGS:
        for model in ("", *getattr(config_files.load(path), "MODELS", ())):
            name = f"{path.stem}:{model}" if model else path.stem
            yield pytest.param(path, model, id=name)


SMALL = {"train": 200, "valid": 100, "test": 100}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Prepares a small copy of a data set once, and returns the folder."""

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


def trace(experiment):
    """Traces a step, which fails on whatever settings, fields and shapes make impossible."""
    data = PreparedData(experiment.data.name, experiment.data.folder, experiment.data.labels)
    trainer = Trainer(experiment, data)
    network, optimizer, placement = trainer.network, trainer.optimizer, trainer.placement
    state = jax.eval_shape(lambda: create_state(network, optimizer, 0, placement))
    batch = next(iter(data.batches("train", experiment.loop.batch_size, seed=1, epoch=0)))
    batch = jax.eval_shape(lambda: batch)
    after, metrics = jax.eval_shape(make_train_step(network, optimizer, placement), state, batch)
    assert metrics["loss"].shape == ()
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@pytest.mark.parametrize(("path", "model"), list(runs()))
def test_it_can_train(path, model, folder_of, tmp_path):
    config = config_files.load(path).get_config(*filter(None, [model]))
    name = config.data.name
    config.data.folder = str(folder_of(name))
    rows = split_summaries(dataset_folder(name, config.data.folder))["train"].rows
    batch_size = -(-rows // 8) * 8  # All rows, in equal parts for the devices.
    for stage in (config, *([config.pretraining] if config.get("pretraining") else [])):
        stage.loop.epochs = 1
        stage.loop.batch_size = stage.loop.eval_batch_size = batch_size
    experiment = Experiment.from_mapping(config.to_dict())
    # What a model has of its own is tested with the models; here, that a recipe's settings fit it.
    if model and not experiment.first_stage:
        trace(experiment)
        return
    results = train(experiment, tmp_path)
    assert results["best_step"] == 1
    assert 0.0 <= results["metrics"]["test"]["auc"] <= 1.0
    assert ("oracle" in results) == (name == "synthetic")
