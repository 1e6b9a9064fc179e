"""Recipes by name, config files by path."""

import pathlib
import shutil

import pytest

from deepfm_jax import UserError
from experiments import config_files

ROOT = pathlib.Path(__file__).parents[2]
FRAPPE = ROOT / "experiments/configs/frappe.py"


def test_a_recipe_is_found_by_its_name_or_its_path():
    assert config_files.split("frappe") == (FRAPPE, "")
    assert config_files.split(f"{FRAPPE}:fm") == (FRAPPE, "fm")
    assert config_files.read("frappe:fm") == config_files.read(f"{FRAPPE}:fm")
    assert config_files.read("frappe").model.name == "deepfm"


def test_helpers_of_recipes_are_no_recipes():
    assert set(config_files.recipes()) >= {"demo", "frappe", "tabular"}
    assert "plateau_recipe" not in config_files.recipes()


def test_a_copy_of_a_recipe_works_anywhere(tmp_path):
    copy = shutil.copy(FRAPPE, tmp_path / "mine.py")
    assert config_files.read(f"{copy}:lr") == config_files.read("frappe:lr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "mine.py: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config(:", "mine.py: SyntaxError: "),
        ("x = 1", r"mine.py defines no get_config\(\)"),
        (None, "mine.py' is neither a config file nor a recipe; recipes are criteo, "),
    ],
)
def test_a_file_that_does_not_run_is_named(text, message, tmp_path):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        config_files.read(str(path))


@pytest.mark.parametrize("name", ["criteo", "criteo_1tb", "demo", "frappe", "movielens", "tabular"])
def test_each_label_of_a_recipe_has_a_default_workdir_of_its_own(name):
    module = config_files.load(config_files.recipes()[name])
    folders = {
        config_files.default_workdir(f"{name}:{label}", module.get_config(label).model.name)
        for label in module.MODELS
    }
    assert len(folders) == len(module.MODELS)
    assert config_files.default_workdir(name, "deepfm") in folders
