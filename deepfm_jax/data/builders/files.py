"""Finding the files of a split in the folder that a user names."""

import pathlib
from collections.abc import Sequence

from deepfm_jax.errors import UserError

_COMPRESSIONS = ("", ".gz", ".zst")


def candidates(split: str, extensions: Sequence[str]) -> list[str]:
    """File names that may hold a split, plain or compressed."""
    return [f"{split}{ext}{packed}" for ext in extensions for packed in _COMPRESSIONS]


def has_split(source: pathlib.Path, split: str, extensions: Sequence[str]) -> bool:
    """Whether ``source`` holds a file of the split."""
    return any((source / name).is_file() for name in candidates(split, extensions))


def find_split(source: pathlib.Path, split: str, extensions: Sequence[str]) -> pathlib.Path:
    """The one file of a split.

    Raises:
      UserError: no such file, or more than one (``train.csv`` beside ``train.csv.gz``).
    """
    names = candidates(split, extensions)
    found = [source / name for name in names if (source / name).is_file()]
    if not found:
        raise UserError(f"{source}: no file for split {split!r}; looked for {', '.join(names)}")
    if len(found) > 1:
        raise UserError(
            f"{source}: split {split!r} is there as {found[0].name} and {found[1].name}; keep one"
        )
    return found[0]
