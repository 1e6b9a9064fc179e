"""Combines a trained model with its encoder: raw rows in, probabilities out."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64

from deepfm_jax.distributed.partitioning import Placement, create_mesh
from deepfm_jax.readers.sources import typed_table
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import restore_best
from deepfm_jax.training.state import weights_layout
from deepfm_jax.training.step import make_score_step

# Tables up to this size are replicated, so that lookups need no communication between devices.
_WHOLE_TABLE_BYTES = 1 << 28


class Predictor:
    """Scores raw rows with the best weights of a run.

    Attributes:
      experiment: The run's settings.
      encoder: Encodes raw rows as in training.
      tasks: Names of the predicted labels.
      batch_size: Examples scored at once, a multiple of the number of devices.
    """

    def __init__(self, workdir: str | os.PathLike[str], mesh: jax.sharding.Mesh | None = None):
        """Opens the run in ``workdir``.

        Args:
          workdir: Folder of a run.
          mesh: Devices to score on (see ``create_mesh``); None for all.

        Raises:
          UserError: the folder holds no run, or a run that has not been evaluated yet.
        """
        self.experiment, self.encoder = workdirs.read(workdir)
        mesh = create_mesh() if mesh is None else mesh
        self.batch_size = -(-self.experiment.loop.eval_batch_size // mesh.size) * mesh.size
        network = self.experiment.build_network(self.encoder)
        self.tasks = network.head.tasks
        self._head = network.head
        layout = network.model.layout
        arrays = [array for space in layout.spaces for array in space.arrays]
        size = sum(4 * rows * max(length, 1) for _, rows, length in arrays)
        placement = Placement(mesh, striped=mesh.size > 1 and size > _WHOLE_TABLE_BYTES)
        self._weights = restore_best(workdir, weights_layout(network, placement))
        rate = self.experiment.data.negative_rate
        self._score = make_score_step(network, placement, rate)

    def logits(self, table: pa.Table) -> Float32[np.ndarray, "rows tasks"]:
        """Logits of typed rows (see ``readers.sources``), in their order.

        If the run was trained on a share of the negative examples, they are corrected for it.
        """
        encoded = self.encoder.encode(table)
        arrays = {"ids": encoded.ids, "values": encoded.values, "dense": encoded.dense}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        rows, size = len(encoded.ids), self.batch_size
        logits = [np.zeros((0, len(self.tasks)), np.float32)]
        for start in range(0, rows, size):
            count = min(size, rows - start)
            # The last batch is padded and cut again: one shape needs one compilation.
            batch = {
                name: np.pad(array[start : start + count], ((0, size - count), (0, 0)))
                for name, array in arrays.items()
            }
            logits.append(self.score(batch)[:count])
        return np.concatenate(logits)

    def score(self, batch: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "batch tasks"]:
        """Logits of an encoded batch; B must be a multiple of the number of devices.

        Args:
          batch: ``ids`` [B, S], and ``values`` [B, S] and ``dense`` [B, N] if fields need them.
        """
        return np.asarray(self._score(self._weights, dict(batch)))

    def probabilities(self, table: pa.Table) -> Float64[np.ndarray, "rows tasks"]:
        """P(label = 1) of typed rows for each task, in their order."""
        return self._head.probabilities(self.logits(table))

    def predict(self, rows: Any, *, max_bad_rows: int = 0) -> Float64[np.ndarray, "rows ..."]:
        """P(label = 1) of raw rows in memory: a pyarrow, pandas or polars table, or a dict.

        Returns:
          One probability per row, [rows]; for several tasks [rows, tasks], in the order of
          ``tasks``. Tolerated bad rows are left out.

        Raises:
          UserError: see ``sources.typed_table``.
        """
        table = typed_table(rows, self.encoder.schema, max_bad_rows=max_bad_rows)
        found = self.probabilities(table)
        return found[:, 0] if len(self.tasks) == 1 else found
