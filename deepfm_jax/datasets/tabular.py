"""Any table, with a schema that the user gives."""

import os
from collections.abc import Sequence
from typing import ClassVar

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.files import find_split, has_split
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.splitting import ReadSplit
from deepfm_jax.errors import UserError
from deepfm_jax.readers.libsvm_files import FEATURE_EXTENSIONS
from deepfm_jax.readers.paths import source_path
from deepfm_jax.schema import Schema

_EXTENSIONS = (".csv", ".tsv", ".txt", ".data", ".parquet", *FEATURE_EXTENSIONS)


def train_files(source: str | os.PathLike[str], extensions: Sequence[str] = _EXTENSIONS) -> str:
    """The training files of a source: those in the folder, or the source itself if it is a file.

    Raises:
      UserError: the folder has no training files.
    """
    folder = source_path(source)
    return find_split(folder, "train", extensions) if folder.is_dir() else os.fspath(source)


class Tabular(ClickLogBuilder, skip_registration=True):
    """A user's own table: text, Parquet or libsvm, read with ``options.schema``.

    The source is a folder of ``train``, ``valid`` and ``test`` files, one or several of each
    (``train-*.parquet``); or a folder with only ``train``, a file, or a pattern of files, whose
    rows are split 80/10/10 by a seeded draw, or by time with ``options.time_column``.
    """

    name = "tabular"
    SOURCE_MAY_BE_FILES = True
    EXTENSIONS: ClassVar[Sequence[str]] = _EXTENSIONS

    @classmethod
    def encoded_schema(cls, options: BuildOptions) -> Schema:
        if options.schema is None:
            raise UserError(
                "data set 'tabular' needs a schema of its columns: --schema=FILE; prepare "
                "--infer_schema writes a first draft"
            )
        return options.apply(Schema.from_dict(options.schema))

    def read_splits(self) -> dict[str, ReadSplit]:
        assert self.source is not None
        if not self.source.is_dir():
            return self._drawn(self.source)
        has = {split: has_split(self.source, split, self.EXTENSIONS) for split in ("valid", "test")}
        if has["test"] and not has["valid"]:
            raise UserError(
                f"{self.source}: has files for 'train' and 'test' but none for 'valid', which "
                "early stopping needs; add them, or split one file into all three: "
                f"--source={train_files(self.source, self.EXTENSIONS)}"
            )
        return self._given_or_drawn(self.EXTENSIONS)
