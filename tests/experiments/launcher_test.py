"""What the command line changes in the configs of a comparison."""

import pytest

from deepfm_jax import UserError
from experiments import launcher
from experiments.configs import frappe


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, (100, 5)),
        ({"loop.epochs": 2}, (2, 2)),
        ({"loop.epochs": 9}, (9, 5)),
        ({"loop.epochs": 2, "pretraining.loop.epochs": 4}, (2, 4)),
    ],
)
def test_fewer_epochs_shorten_the_stage_before_too(changes, epochs):
    config = frappe.get_config("fnn").lock()
    launcher.change(config, changes, "fnn")
    assert (config.loop.epochs, config.pretraining.loop.epochs) == epochs


def test_models_of_one_stage_and_keys_that_do_not_exist():
    config = frappe.get_config("fm").lock()
    launcher.change(config, {"loop.epochs": 2}, "fm")
    assert config.loop.epochs == 2
    assert "pretraining" not in config
    with pytest.raises(UserError, match=r"--config\.model\.mlp_dims: fm has no such setting"):
        launcher.change(config, {"model.mlp_dims": (4,)}, "fm")
    with pytest.raises(UserError, match=r"--config\.loop\.epochs='two' of fm"):
        launcher.change(config, {"loop.epochs": "two"}, "fm")
