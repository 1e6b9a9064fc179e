"""The default data set: a simulated click log whose best possible metrics are known."""

import functools
from typing import Any

from deepfm_jax.datasets import simulator as synthetic
from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.splitting import ReadSplit
from deepfm_jax.metrics import BinaryMetrics

_CHUNK_ROWS = 100_000
_DEFAULT_ROWS = 1_000_000
# Streams of the simulator, far apart, so that chunks of different splits never share one.
_FIRST_STREAM = {"train": 0, "valid": 1_000_000, "test": 2_000_000}


class Synthetic(ClickLogBuilder, skip_registration=True):
    """Simulated click log shaped like Criteo's: 13 numeric and 26 categorical columns.

    ``train`` has ``options.rows`` rows (a million by default), ``valid`` and ``test`` a tenth of
    that, at most 100,000. ``oracle.json`` beside the blocks holds the metrics of the true logits on
    ``valid`` and ``test``; a model can only exceed them by chance.
    """

    name = "synthetic"
    SCHEMA = synthetic.SCHEMA
    NEEDS_SOURCE = False

    def read_splits(self) -> dict[str, ReadSplit]:
        return {
            split: functools.partial(self._simulated, split, rows)
            for split, rows in self._split_rows().items()
        }

    def _split_rows(self) -> dict[str, int]:
        train = self.options.rows or _DEFAULT_ROWS
        held_out = min(max(train // 10, 1), 100_000)
        return {"train": train, "valid": held_out, "test": held_out}

    def _simulate(self, split, rows):
        simulator = synthetic.Simulator()
        for chunk, start in enumerate(range(0, rows, _CHUNK_ROWS)):
            stream = _FIRST_STREAM[split] + chunk
            yield simulator.simulate(min(_CHUNK_ROWS, rows - start), stream=stream)

    def _simulated(self, split, rows, report):
        for simulated in self._simulate(split, rows):
            if report is not None:
                report.read += simulated.table.num_rows
                report.kept += simulated.table.num_rows
            yield simulated.table

    def _extra_files(self) -> dict[str, Any]:
        oracle = {}
        for split, rows in self._split_rows().items():
            if split == "train":
                continue
            state = BinaryMetrics.concatenate(
                [
                    BinaryMetrics.from_batch(
                        simulated.logits, simulated.table[synthetic.SCHEMA.label.name].to_numpy()
                    )
                    for simulated in self._simulate(split, rows)
                ]
            )
            oracle[split] = state.compute(split=split)
        return {"oracle": oracle}
