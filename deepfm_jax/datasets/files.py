"""Finds the files of a split in a source folder."""

import glob
import os
from collections.abc import Sequence

from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import SourcePath

_COMPRESSIONS = ("", ".gz", ".zst")
# Names of splits after the name of a data set: frappe.train.libfm, frappe.validation.libfm.
_DOTTED = {"valid": ("valid", "validation")}


def candidates(split: str, extensions: Sequence[str]) -> list[str]:
    """Possible names of the files of a split: one file, or several with numbers or dates."""
    stems = (split, f"{split}-*")
    return [f"{stem}{ending}" for ext in extensions for stem in stems for ending in _endings(ext)]


def _endings(ext: str) -> list[str]:
    return [f"{ext}{packed}" for packed in (_COMPRESSIONS if ext != ".parquet" else ("",))]


def find_file(source: SourcePath, name: str) -> SourcePath | None:
    """The text file of this name, plain or compressed; None if it does not exist."""
    found = (source / f"{name}{packed}" for packed in _COMPRESSIONS)
    return next((path for path in found if path.is_file()), None)


def has_split(source: SourcePath, split: str, extensions: Sequence[str]) -> bool:
    """Whether ``source`` holds files of the split."""
    return bool(_found(source, split, extensions))


def find_split(source: SourcePath, split: str, extensions: Sequence[str]) -> str:
    """The file of a split, or a pattern of its files (see ``paths.find_files``).

    Raises:
      UserError: there is no such file, or several conflict (``train.csv`` beside
        ``train.csv.gz``).
    """
    found = _found(source, split, extensions)
    if not found:
        first = extensions[0]
        raise UserError(
            f"{source}: no file for split {split!r}; looked for {split}{first}, {split}-*{first} "
            f"and the like ({', '.join(extensions)}; text may be .gz or .zst)"
        )
    if len(found) > 1:
        raise UserError(f"{source}: split {split!r} has both {found[0]} and {found[1]}; keep one")
    # The folder is escaped, so that only the file name is matched as a pattern.
    several = "*" in found[0]
    folder = os.fspath(source)
    return os.path.join(glob.escape(folder) if several else folder, found[0])


def _found(source: SourcePath, split: str, extensions: Sequence[str]) -> list[str]:
    names = candidates(split, extensions)
    found = [name for name in names if any(path.is_file() for path in source.glob(name))]
    return found or [
        path.name
        for word in _DOTTED.get(split, (split,))
        for ext in extensions
        for ending in _endings(ext)
        for path in source.glob(f"*.{word}{ending}")
        if path.is_file()
    ]
