"""The Criteo Display Advertising Challenge, in its original TSV layout."""

import functools
import pathlib

import numpy as np
import pyarrow as pa

from deepfm_jax.data.builders.click_log import ClickLogBuilder, ReadSplit
from deepfm_jax.data.builders.files import find_split, has_split
from deepfm_jax.data.sources import RowReport, read_tables
from deepfm_jax.schema import Categorical, Label, Numeric, Schema, TextFormat

_EXTENSIONS = (".tsv", ".txt")
_SPLIT_SEED = 2017
_SPLIT_SHARES = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


class Criteo(ClickLogBuilder, skip_registration=True):
    """Criteo display advertising: 13 integer and 26 hashed categorical columns, no header.

    Reads ``train``, ``valid`` and ``test`` as ``.tsv`` or ``.txt``, plain, ``.gz`` or ``.zst``.
    Where there is no ``valid`` file (the challenge's own ``train.txt``, whose ``test.txt`` has no
    labels), the rows of ``train`` are split 80/10/10 by a seeded draw for each row.

    Source: Criteo 2014, https://www.kaggle.com/c/criteo-display-ad-challenge.
    """

    name = "criteo"
    SCHEMA = Schema(
        columns=(
            Label("label"),
            *(Numeric(f"I{i}", transform="log2_floor", min_count=2) for i in range(1, 14)),
            *(Categorical(f"C{i}", min_count=2) for i in range(1, 27)),
        ),
        text=TextFormat(delimiter="\t", header=False, quoting=False),
    )

    def _read_splits(self, source: pathlib.Path | None) -> dict[str, ReadSplit]:
        assert source is not None
        train = find_split(source, "train", _EXTENSIONS)
        if has_split(source, "valid", _EXTENSIONS):
            paths = {"train": train}
            paths |= {s: find_split(source, s, _EXTENSIONS) for s in ("valid", "test")}
            return {s: functools.partial(self._read, path) for s, path in paths.items()}
        return {split: functools.partial(self._read_share, train, split) for split in _SPLIT_SHARES}

    def _read(self, path, report):
        return read_tables(path, self.schema, max_bad_rows=self.options.max_bad_rows, report=report)

    def _read_share(self, path, split, report):
        """The rows of ``path`` that the seeded draw gives to ``split``."""
        low, high = _SPLIT_SHARES[split]
        rng = np.random.default_rng(_SPLIT_SEED)
        report = RowReport() if report is None else report
        whole_file = RowReport(on_rejected=report.on_rejected if split == "train" else None)
        for table in self._read(path, whole_file):
            draw = rng.random(table.num_rows)
            share = table.filter(pa.array((low <= draw) & (draw < high)))
            report.read += share.num_rows
            report.kept += share.num_rows
            yield share
        if split == "train":  # A bad row is drawn into no split; it is told once.
            report.read += whole_file.rejected
            report.rejected = whole_file.rejected
            report.first_errors = whole_file.first_errors
