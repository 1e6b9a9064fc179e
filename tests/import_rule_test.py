"""Imports point down the floors only, and what is heavy stays where it belongs."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "deepfm_jax"

# From the ground up; a module may import its own floor and those below.
FLOORS = (
    ("errors", "files", "typing", "fields", "column_options", "list_columns", "columns",
     "dataclass_data", "schema",
     "metrics", "bootstrap", "losses", "partitioning", "hosts", "calibration", "group_auc"),
    ("embedding", "layers", "heads"),
    ("models",),
    ("data",),
    ("training",),
    ("serving",),
)  # fmt: skip
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
# Side by side on one floor, and strangers to each other.
STRANGERS = {"embedding": {"layers", "heads"}, "layers": {"embedding", "heads"},
             "heads": {"embedding", "layers"}}  # fmt: skip


def modules():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imported(path):
    """Absolute names of everything that a file imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


every_module = pytest.mark.parametrize("path", modules(), ids=str)


@every_module
def test_imports_point_down(path):
    floor = path.parts[0].removesuffix(".py")
    if floor == "__init__":
        return
    assert floor in LEVEL, f"{path} stands on no floor; add it to FLOORS and to BUILD.md"
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] != "experiments", f"{path} imports {name}"
        if parts[0] != "deepfm_jax" or parts[1] not in LEVEL:
            continue
        assert LEVEL[parts[1]] <= LEVEL[floor], f"{path} imports {name}, a floor above"
        assert parts[1] not in STRANGERS.get(floor, set()), f"{path} imports {name}"


@every_module
def test_tensorflow_is_imported_by_data_alone(path):
    if path.parts[0] == "data":
        return
    heavy = {name for name in imported(path) if name.startswith("tensorflow")}
    assert not heavy, f"{path} imports {heavy}"


@every_module
def test_the_library_knows_neither_flags_nor_config_files(path):
    known = {name for name in imported(path) if name.split(".")[0] in ("absl", "ml_collections")}
    assert not known, f"{path} imports {known}"


def test_importing_the_models_loads_no_tensorflow():
    code = (
        "import sys, deepfm_jax; from deepfm_jax.models import DeepFM; "
        "print([m for m in ('tensorflow', 'ml_collections', 'sklearn', 'pyarrow') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
