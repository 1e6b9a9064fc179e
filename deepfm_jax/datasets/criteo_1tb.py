"""Criteo's terabyte of click logs, in their original layout of 24 day files."""

import dataclasses
import os

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.criteo import Criteo
from deepfm_jax.datasets.files import find_file
from deepfm_jax.datasets.splitting import ReadSplit, split_in_order
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Categorical, Numeric

DAYS = 24
# Hash buckets of the columns with more than 10^5 values: MLPerf's caps on the ids, rounded up.
_LARGE = {1: 40_000_000, 10: 40_000_000, 11: 4_000_000, 12: 1_000_000}
_LARGE |= {20: 40_000_000, 21: 40_000_000, 22: 40_000_000, 23: 1_000_000}


def _category(number: int) -> Categorical:
    if number in _LARGE:
        return Categorical(f"C{number}", hash_buckets=_LARGE[number])
    return Categorical(f"C{number}", min_count=3)


class Criteo1TB(ClickLogBuilder, skip_registration=True):
    """Criteo 1TB click logs: 4,373,472,329 rows of 24 days, with the columns of ``criteo``.

    Reads ``day_0`` to ``day_23``, plain, ``.gz`` or ``.zst``. Days 0 to 22 are train (4,195,197,692
    rows); the first half of day 23 is valid and the second half test (89,137,319 and 89,137,318
    rows), as in MLPerf's reference DLRM-DCNv2. The first DLRM and NVIDIA's examples swap the two,
    so check which half a published number refers to.

    The eight columns with the most values are hashed, into 206 million buckets in total, because
    vocabularies of that size would be slow to look up and large to store. In the other columns, and
    in the integers' floor(ln(x)^2), values in fewer than 3 training rows share id 0, as in
    TorchRec's recipe.

    Source: Criteo 2015, https://ailab.criteo.com/download-criteo-1tb-click-logs-dataset; the split:
      facebookresearch/dlrm, torchrec_dlrm/data/dlrm_dataloader.py.
    """

    name = "criteo_1tb"
    SCHEMA = dataclasses.replace(
        Criteo.SCHEMA,
        columns=(
            Criteo.SCHEMA.label,
            *(Numeric(f"I{i}", transform="log2_floor", min_count=3) for i in range(1, 14)),
            *map(_category, range(1, 27)),
        ),
    )

    def read_splits(self) -> dict[str, ReadSplit]:
        assert self.source is not None
        if self.options.time_column is not None:
            raise UserError(f"{self.source}: day_{DAYS - 1} is held out; omit time_column")
        files = []
        for day in range(DAYS):
            file = find_file(self.source, f"day_{day}")
            if file is None:
                raise UserError(
                    f"{self.source}: day_{day} is missing; criteo_1tb needs day_0 to "
                    f"day_{DAYS - 1}, plain, .gz or .zst"
                )
            files.append(os.fspath(file))
        held_out = self._files((files[-1],))
        return {
            "train": self._files(tuple(files[:-1])),
            **split_in_order(held_out, ("valid", "test"), self._passes),
        }
