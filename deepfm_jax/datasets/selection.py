"""Finds the builder of a data set by name, and checks its source."""

import os

from deepfm_jax.datasets import BUILDERS
from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import source_path


def find_builder(name: str, source: str | os.PathLike[str] | None) -> type[ClickLogBuilder]:
    """The class of data set ``name``, one of ``BUILDERS``.

    Raises:
      UserError: the name is unknown, a needed source is missing, or a source that must be a folder
        is not one.
    """
    if name not in BUILDERS:
        raise UserError(f"data set {name!r} is unknown; use one of {sorted(BUILDERS)}")
    builder_class = BUILDERS[name]
    if builder_class.NEEDS_SOURCE:
        if source is None:
            raise UserError(f"data set {name!r} is made from raw files; name them with --source")
        if not builder_class.SOURCE_MAY_BE_FILES and not source_path(source).is_dir():
            raise UserError(f"--source={source}: no such folder")
    return builder_class
