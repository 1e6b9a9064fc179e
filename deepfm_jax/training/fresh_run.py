"""A run before its first step, as the sources of first weights see it."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from deepfm_jax.distributed.partitioning import Placement
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.settings import Experiment


@dataclasses.dataclass(frozen=True)
class FreshRun:
    """What is known of a run when its first weights are decided.

    Attributes:
      experiment: Its settings.
      network: What it trains.
      encoder: Of its rows.
      optimizer: What moves the network's parameters.
      placement: Where they lie.
      workdir: Folder of the run.
      check: Raises UserError where another experiment cannot be trained on the same rows.
      train: Trains another experiment to its end in another folder (see ``loop.train``).
    """

    experiment: Experiment
    network: Network
    encoder: Encoder
    optimizer: Optimizer
    placement: Placement
    workdir: str | os.PathLike[str]
    check: Callable[[Experiment], Any]
    train: Callable[[Experiment, str | os.PathLike[str]], Any]
