"""Settings of every test: 8 virtual CPU devices, strict ranks, shapes checked at run time."""

import importlib
import os
import subprocess
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile far more than they compute, so code is not optimised. Eight devices of two busy
# cores may meet late; by default XLA ends the process after 40 seconds.
_XLA_FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
)


def _is_known(*xla_flags: str) -> bool:
    """Whether XLA starts with these flags; one that it does not know aborts the process."""
    return not subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": " ".join(xla_flags)},
        capture_output=True,
        check=False,
    ).returncode


# The workers of pytest-xdist inherit what the first process found out.
if "DEEPFM_TESTS_XLA_FLAGS" not in os.environ:
    _known = _XLA_FLAGS if _is_known(*_XLA_FLAGS) else tuple(filter(_is_known, _XLA_FLAGS))
    os.environ["DEEPFM_TESTS_XLA_FLAGS"] = " ".join(_known)
os.environ["XLA_FLAGS"] = os.environ["DEEPFM_TESTS_XLA_FLAGS"]
# Threads of XLA's pools, by default one for each of the eight devices: seven that wait for the last
# in a collective may have left it none to run on, and all wait for ever.
os.environ["NPROC"] = "16"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import jaxtyping
import pytest

# What is first imported while the hook below loads a module is compiled from its source in every
# process, not read from its cache; so the largest libraries are imported before it.
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
    importlib.import_module(_library)

# Checks the shapes and dtypes that public signatures declare, in tests only.
jaxtyping.install_import_hook("deepfm_jax", "beartype.beartype")


@pytest.fixture
def unchecked_types():
    """As in a user's process, where no signature is checked: the library must do it alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
    from deepfm_jax.data.prepare import prepare

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
