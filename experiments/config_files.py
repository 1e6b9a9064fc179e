"""Config files: recipes by name, or any file by its path."""

import importlib.util
import pathlib
import re
import sys
from types import ModuleType
from typing import Any

from deepfm_jax.errors import UserError, one_line

_FOLDER = pathlib.Path(__file__).parent / "configs"
# A config is loaded as a module beside the recipes, so that a copy of a recipe finds the recipe's
# imports, wherever the copy is kept and whatever the name of this package.
_MODULE = f"{__package__}.configs.config_file"


def recipes() -> dict[str, pathlib.Path]:
    """Recipes by name: the files of ``configs/`` that define ``get_config``."""
    return {
        path.stem: path
        for path in sorted(_FOLDER.glob("*.py"))
        if re.search(r"^def get_config\(", path.read_text(), re.MULTILINE)
    }


def split(text: str) -> tuple[pathlib.Path, str]:
    """Splits ``--config`` into a file and a model; the model is empty if none is named.

    Args:
      text: ``RECIPE``, ``RECIPE:MODEL``, ``path/to/config.py`` or ``path/to/config.py:MODEL``.

    Raises:
      UserError: the file or the recipe does not exist.
    """
    name, _, model = text.partition(":")
    path = recipes().get(name, pathlib.Path(name))
    if not path.is_file():
        raise UserError(
            f"{name!r} is neither a config file nor a recipe; recipes are {', '.join(recipes())}"
        )
    return path, model


def default_workdir(text: str, model: str) -> pathlib.Path:
    """The default folder of a run: ``runs/CONFIG-LABEL``.

    Args:
      text: See ``split``; a config may have several labels for one model.
      model: Name of the model, which is the label if ``text`` has none.
    """
    path, label = split(text)
    return pathlib.Path(f"runs/{path.stem}-{label or model}")


def read(text: str) -> Any:
    """Reads the config that ``--config=text`` names.

    Raises:
      UserError: the file does not exist or fails to run.
      ValueError: the config does not have the model.
    """
    path, model = split(text)
    return load(path).get_config(*filter(None, [model]))


def load(path: pathlib.Path) -> ModuleType:
    """Runs a config file and returns it as a module.

    Raises:
      UserError: the file fails, or does not define ``get_config``.
    """
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {one_line(error)}") from error
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} defines no get_config()")
    return module
