"""Sources of a fresh run's first weights, beyond the initializers.

Each source is a class in its own file, and an entry in ``SOURCES`` under the key of ``Experiment``
that asks for it.
"""

import os
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import frozen_arrays
from deepfm_jax.training.fresh_run import FreshRun
from deepfm_jax.training.pretrained_vectors import VectorsSource
from deepfm_jax.training.pretraining import PretrainingSource
from deepfm_jax.training.settings import Experiment
from deepfm_jax.training.state import TrainState
from deepfm_jax.training.warm_start import WarmStartSource


@runtime_checkable
class Source(Protocol):
    """A source of first weights. Its constructor checks everything that a user can get wrong.

    Attributes:
      digest: Text that changes with the content that the source has read from files; the
        processes of a job compare it.
    """

    digest: str

    def start(self, state: TrainState) -> TrainState:
        """Returns a fresh state with the weights of the source."""
        ...


SOURCES: dict[str, Callable[[FreshRun], Source]] = {
    "pretraining": PretrainingSource,
    "warm_start": WarmStartSource,
    "pretrained_vectors": VectorsSource,
}


def open_source(run: FreshRun) -> Source | None:
    """Opens the source that a run's settings ask for; None if there is none or the run has begun.

    Raises:
      UserError: the source does not fit the run.
    """
    requested = [key for key in SOURCES if getattr(run.experiment, key)]
    if not requested or workdirs.has_checkpoints(run.workdir):
        return None
    return SOURCES[requested[0]](run)


def has_frozen_rows(experiment: Experiment, workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has frozen rows of the table.

    They come from its own pretrained vectors, or from the run that it starts from. Once a run has
    begun, its own checkpoints are decisive: the other run may be gone.
    """
    begun = workdirs.has_checkpoints(workdir)
    before = workdir if begun else experiment.warm_start
    return experiment.has_frozen_vectors or (before is not None and bool(frozen_arrays(before)))
