"""Imports point down only, and what is heavy stays where it belongs."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "deepfm_jax"

# From the ground up; a module may import its own room and those below, not those beside it.
FLOORS = (
    ("errors", "typing", "annotations"),
    ("files", "features", "dataclass_data", "precision", "shardings"),
    ("hyperparameters",),
    ("cells", "coders", "metrics", "distributed"),
    ("columns",),
    ("schema",),
    ("embedding", "layers", "readers"),
    ("inputs", "heads"),
    ("models", "encoding"),
    ("infer_schema",),
    ("datasets",),
    ("profiling", "input"),
    ("training",),
    ("serving",),
    ("evaluation",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# The package itself gathers what a researcher imports, and is no room.
GATHERED = "__init__"


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.fixture(scope="module")
def imports():
    """Absolute names of everything that each file imports, wherever the statement stands."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[path] = names
    return found


def test_imports_point_down(imports):
    for path, names in imports.items():
        room = room_of(path)
        if room == GATHERED:
            continue
        assert room in LEVEL, f"{path} is in no room of FLOORS; add it there and to BUILD.md"
        for name in names:
            top, _, rest = name.partition(".")
            assert top != "experiments", f"{path} imports {name}"
            other = rest.partition(".")[0]
            if top != "deepfm_jax" or other not in LEVEL or other == room:
                continue
            assert LEVEL[other] < LEVEL[room], f"{path} imports {name}, which is not below it"


def test_heavy_libraries_are_imported_where_they_belong(imports):
    allowed = {
        "tensorflow": ("datasets", "input"),
        "tensorflow_datasets": ("datasets", "input"),
        "apache_beam": ("datasets",),
        # The library knows neither flags nor config files.
        "absl": (),
        "ml_collections": (),
    }
    for path, names in imports.items():
        for name in names:
            rooms = allowed.get(name.partition(".")[0])
            assert rooms is None or room_of(path) in rooms, f"{path} imports {name}"


def test_no_room_is_larger_than_a_fifth_of_the_package(imports):
    lines = {path: len(path.read_text().splitlines()) for path in imports}
    total = sum(lines.values())
    for room in LEVEL:
        share = sum(count for path, count in lines.items() if room_of(path) == room) / total
        assert share <= 0.2, f"{room} holds {share:.0%} of the package"


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
