"""Settings of every test: 8 virtual CPU devices, strict ranks, shapes checked at run time."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import jaxtyping
import pytest

# Checks the shapes and dtypes that public signatures declare, in tests only.
jaxtyping.install_import_hook("deepfm_jax", "beartype.beartype")


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real samples, or a skip where it is absent."""
    import pathlib

    root = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("DEEPFM_DATA", root / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder}; set DEEPFM_DATA to the folder that holds them")
    return folder
