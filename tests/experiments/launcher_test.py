"""Command-line changes to the configs of a comparison."""

import pytest
from absl import flags
from ml_collections import config_flags

from deepfm_jax import MODELS, UserError
from deepfm_jax.models import EmbeddingModel, Model
from experiments import launcher
from experiments.configs import frappe, plateau_recipe


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, (100, 5)),
        ({"loop.epochs": 2}, (2, 2)),
        ({"loop.epochs": 9}, (9, 5)),
        ({"loop.epochs": 2, "pretraining.loop.epochs": 4}, (2, 4)),
    ],
)
def test_fewer_epochs_shorten_the_pretraining_stage_too(changes, epochs):
    config = frappe.get_config("fnn").lock()
    launcher.change(config, changes, "fnn")
    assert (config.loop.epochs, config.pretraining.loop.epochs) == epochs


FOLLOWING = ("model.embed_dim", "loop.batch_size", "loop.eval_batch_size", "loop.streams")


def value(config, key):
    section, name = key.split(".")
    return config[section][name]


@pytest.mark.parametrize("key", FOLLOWING)
def test_the_pretraining_stage_has_vectors_and_batches_as_large_as_the_model(key):
    config = frappe.get_config("fnn").lock()
    assert value(config.pretraining, key) == value(config, key)
    launcher.change(config, {key: 32}, "fnn")
    assert value(config, key) == value(config.pretraining, key) == 32
    launcher.change(config, {f"pretraining.{key}": 8}, "fnn")
    assert (value(config, key), value(config.pretraining, key)) == (32, 8)
    launcher.change(config, {key: 64}, "fnn")
    assert (value(config, key), value(config.pretraining, key)) == (64, 8)


@pytest.mark.parametrize(
    ("environment", "libtpu", "vendors", "devices", "expected"),
    [
        ({}, True, ["0x8086"], [], "cpu"),
        ({}, True, [], [], "cpu"),
        ({}, False, [], [], None),  # No libtpu: JAX's own choice.
        ({"JAX_PLATFORMS": "tpu"}, True, [], [], None),
        ({}, True, ["0x8086", "0x1ae0"], [], None),
        ({}, True, ["0x10de"], [], None),
        ({}, True, [], ["/dev/nvidiactl"], None),
    ],
)
def test_without_any_accelerator_jax_is_kept_from_libtpu(
    environment, libtpu, vendors, devices, expected, tmp_path, monkeypatch
):
    for number, vendor in enumerate(vendors):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
    updates = {}
    monkeypatch.delenv("JAX_PLATFORMS")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launcher, "_PCI_DEVICES", tmp_path)
    monkeypatch.setattr(launcher.os.path, "exists", lambda path: path in devices)
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: libtpu or None)
    monkeypatch.setattr(launcher.jax.config, "update", updates.__setitem__)
    launcher.skip_absent_tpu()
    assert updates.get("jax_platforms") == expected


def test_it_follows_what_a_single_run_changes_as_well():
    values = flags.FlagValues()
    arguments = ["train", "--config.model.embed_dim=32", "--config.loop.batch_size=1024"]
    config_flags.DEFINE_config_dict(
        "config", frappe.get_config("fnn"), flag_values=values, sys_argv=arguments
    )
    values(arguments)
    config = values.config.to_dict()
    assert config["pretraining"]["model"]["embed_dim"] == 32
    assert config["pretraining"]["loop"]["batch_size"] == 1024
    assert config["pretraining"]["loop"]["epochs"] == 5


def test_what_a_model_is_decides_and_not_its_label():
    fnn = {"name": "fnn", "embed_dim": 6, "activation": "tanh"}
    models = {
        "fm_small": {"model": {"name": "fm", "embed_dim": 4}, "optimizer": {}},
        "first_order": {"model": {"name": "lr"}, "optimizer": {}},
        "fnn_tanh": {"model": fnn, "optimizer": {}, "loop": {"batch_size": 64}},
    }

    def config(label, among=models):
        return plateau_recipe.plateau_config(
            "frappe", among, label, embed_dim=10, batch_size=512, epochs=9
        )

    stage = config("fnn_tanh").pretraining
    fm = {"name": "fm", "embed_dim": 6, "init_std": 1e-4, "table_dtype": "float32"}
    assert stage.model.to_dict() == fm
    assert (stage.loop.batch_size, stage.loop.epochs) == (64, 5)
    assert config("first_order").model.to_dict() == {"name": "lr", "table_dtype": "float32"}
    assert config("fm_small").pretraining is None
    with pytest.raises(ValueError, match="'fnn_tanh' starts from an FM, but there are no settings"):
        config("fnn_tanh", among={"fnn_tanh": models["fnn_tanh"]})


def test_models_of_one_stage_and_keys_that_do_not_exist():
    config = frappe.get_config("fm").lock()
    launcher.change(config, {"loop.epochs": 2}, "fm")
    assert config.loop.epochs == 2
    assert config.pretraining is None
    with pytest.raises(UserError, match=r"--config\.model\.mlp_dims: fm has no such setting"):
        launcher.change(config, {"model.mlp_dims": (4,)}, "fm")
    with pytest.raises(UserError, match=r"--config\.loop\.epochs='two' of fm"):
        launcher.change(config, {"loop.epochs": "two"}, "fm")


def test_a_model_from_outside_gets_the_hyperparameters_that_it_has(monkeypatch):
    class WithoutVectors(Model):
        pass

    class WithVectors(EmbeddingModel):
        pass

    found = {}
    for kind in (WithoutVectors, WithVectors):
        monkeypatch.setitem(MODELS, "outside", kind)
        models = {"outside": {"model": {}, "optimizer": {}}}
        config = plateau_recipe.plateau_config(
            "frappe", models, "outside", embed_dim=10, batch_size=512, epochs=9
        )
        found[kind] = set(config.model) - {"name", "table_dtype"}
    assert found == {WithoutVectors: set(), WithVectors: {"embed_dim", "init_std"}}
