"""Settings of every test: 8 virtual CPU devices, strict ranks, shapes checked at run time."""

import importlib.util
import os
import sys

from tests.xla_flags import known_flags

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = known_flags()
# Threads of XLA's pools, by default one for each of the eight devices: seven that wait for the last
# in a collective may have left it none to run on, and all wait for ever.
os.environ["NPROC"] = "16"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import jaxtyping
import pytest

# What is first imported while the hook below loads a module is compiled from its source in every
# process, not read from its cache; so the largest libraries are imported before it. An environment
# for models and training alone, such as an image for GPUs, lacks some of them.
for _library in (
    "clu.metric_writers",
    "flax",
    "matplotlib.pyplot",
    "optax",
    "orbax.checkpoint",
    "scipy.stats",
    "sklearn.metrics",
    "tensorflow_datasets",
):
    if importlib.util.find_spec(_library.partition(".")[0]):
        importlib.import_module(_library)

# Checks the shapes and dtypes that public signatures declare, in tests only.
jaxtyping.install_import_hook("deepfm_jax", "beartype.beartype")


@pytest.fixture
def unchecked_types():
    """As in a user's process, where no signature is checked: the library must do it alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """Leaves out the plots of runs, which take longer than a small run does.

    The runs that a whole module shares begin before this and draw theirs.
    """
    if report := sys.modules.get("deepfm_jax.training.report"):
        for name in ("save_training_plot", "save_calibration_plot"):
            monkeypatch.setattr(report, name, lambda states, path: None)


@pytest.fixture
def source(tmp_path):
    """A folder of raw files in Frappe's layout, a few rows."""
    from tests import click_logs

    folder = tmp_path / "source"
    folder.mkdir()
    click_logs.write_frappe(folder, click_logs.SMALL)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(scope="session")
def frappe_files(tmp_path_factory):
    """Raw files in Frappe's layout, a few thousand learnable rows."""
    from tests import click_logs

    folder = tmp_path_factory.mktemp("frappe_files")
    click_logs.write_frappe(folder)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, frappe_files):
    """``prepare``'s ``--out`` with data set ``frappe`` made of ``frappe_files``."""
    from deepfm_jax.datasets.prepare import prepare

    out = tmp_path_factory.mktemp("prepared")
    prepare("frappe", out, source=frappe_files)
    return out


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real samples, or a skip where it is absent."""
    import pathlib

    root = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("DEEPFM_DATA", root / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}; set DEEPFM_DATA to the folder that holds them")
    return folder
