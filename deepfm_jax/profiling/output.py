"""Writes the three files of an inspection: all of them or none."""

import dataclasses
import json
import os
import pathlib
import tempfile

from deepfm_jax.errors import UserError
from deepfm_jax.files import is_full_disk
from deepfm_jax.profiling.inspect import Inspection
from deepfm_jax.profiling.page import to_html
from deepfm_jax.profiling.text import describe

FILES = ("inspection.txt", "inspection.json", "inspection.html")

__all__ = ["FILES", "check_absent", "describe", "write_inspection"]


def check_absent(folder: str | os.PathLike[str]) -> None:
    """Checks that a folder, which need not exist, holds no inspection yet.

    Raises:
      UserError: the folder holds an inspection.
    """
    existing = [name for name in FILES if (pathlib.Path(folder) / name).exists()]
    if existing:
        raise UserError(
            f"{pathlib.Path(folder) / existing[0]} already exists; choose another --out, or pass "
            "--overwrite"
        )


def write_inspection(inspection: Inspection, folder: str | os.PathLike[str]) -> None:
    """Writes ``inspection.txt``, ``.json`` and ``.html``, replacing existing files.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    contents = (
        describe(inspection),
        json.dumps(dataclasses.asdict(inspection), indent=1) + "\n",
        to_html(inspection),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All are written before the first is renamed.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".inspection.") as staging:
            for name, content in zip(FILES, contents, strict=True):
                (pathlib.Path(staging) / name).write_text(content, encoding="utf-8")
            for name in FILES:
                os.replace(pathlib.Path(staging) / name, folder / name)
    except OSError as error:
        if is_full_disk(error):
            raise UserError(
                f"{folder}: no space left on the disk; free some space and try again"
            ) from None
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
