"""A trained model with its encoder: raw rows in, probabilities out."""

import os
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int32

from deepfm_jax.distributed.partitioning import create_mesh
from deepfm_jax.heads import OneTask
from deepfm_jax.readers.sources import typed_table
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import restore_best
from deepfm_jax.training.optimizer import create_for
from deepfm_jax.training.state import weights_layout
from deepfm_jax.training.step import make_score_step


class Predictor:
    """Scores raw rows with the best weights of a run.

    Attributes:
      experiment: The run's settings.
      encoder: Reads raw rows just as it did in training.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        """Opens the run in ``workdir``.

        Raises:
          UserError: no run there, or one that has not been evaluated once yet.
        """
        self.experiment, self.encoder = workdirs.read(workdir)
        mesh = create_mesh()
        # A multiple of the devices, which split a batch evenly.
        self._batch_size = -(-self.experiment.loop.eval_batch_size // mesh.size) * mesh.size
        model = self.experiment.build_model(self.encoder)
        loop = self.experiment.loop
        optimizer = create_for(self.experiment.optimizer, 1, model, loop.batch_size)
        self._weights = restore_best(workdir, weights_layout(model, optimizer, mesh))
        rate = self.experiment.data.negative_rate
        self._score = make_score_step(model, optimizer, mesh, negative_rate=rate)

    def logits(self, table: pa.Table) -> Float32[np.ndarray, "rows"]:
        """Logits of typed rows (see ``readers.sources``), in their order.

        Where the run was trained on a share of the negative rows, they are corrected for it.
        """
        encoded = self.encoder.encode(table)
        rows = len(encoded.ids)
        logits = []
        for start in range(0, rows, self._batch_size):
            stop = min(start + self._batch_size, rows)
            # One shape, one compilation: the last batch is filled up and cut again.
            padding = ((0, self._batch_size - (stop - start)), (0, 0))
            values = encoded.values
            scored = self.score(
                np.pad(encoded.ids[start:stop], padding),
                None if values is None else np.pad(values[start:stop], padding),
            )
            logits.append(scored[: stop - start])
        return np.concatenate(logits) if logits else np.zeros(0, np.float32)

    def score(
        self,
        ids: Int32[np.ndarray, "batch slots"],
        values: Float32[np.ndarray, "batch slots"] | None = None,
    ) -> Float32[np.ndarray, "batch"]:
        """Logits of encoded rows; all values are 1 when None."""
        return np.asarray(self._score(self._weights, ids, values))

    def probabilities(self, table: pa.Table) -> Float64[np.ndarray, "rows"]:
        """P(click) of typed rows, in their order."""
        return OneTask().probabilities(self.logits(table))

    def predict(self, rows: Any, *, max_bad_rows: int = 0) -> Float64[np.ndarray, "rows"]:
        """P(click) of raw rows in memory: a pyarrow, pandas or polars table, or a dict of columns.

        Raises:
          UserError: see ``sources.typed_table``; bad rows that are tolerated are left out.
        """
        table = typed_table(rows, self.encoder.schema, max_bad_rows=max_bad_rows)
        return self.probabilities(table)
