"""The Criteo Display Advertising Challenge, in its original TSV layout."""

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.splitting import ReadSplit
from deepfm_jax.schema import Categorical, Label, Numeric, Schema, TextFormat


class Criteo(ClickLogBuilder, skip_registration=True):
    """Criteo display advertising: 13 integer and 26 hashed categorical columns, no header.

    Reads ``train``, ``valid`` and ``test`` as ``.tsv`` or ``.txt``, plain, ``.gz`` or ``.zst``.
    Without a ``valid`` file (the challenge has only ``train.txt``, and ``test.txt`` without
    labels), the rows of ``train`` are split 80/10/10 by a seeded draw per row.

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

    def read_splits(self) -> dict[str, ReadSplit]:
        return self._given_or_drawn((".tsv", ".txt"))
