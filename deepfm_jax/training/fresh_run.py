"""A run before its first step, as seen by the sources of first weights."""

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
    """What is known of a run when its first weights are set.

    Attributes:
      experiment: Settings of the run.
      network: Network to train.
      encoder: Encoder of its data set.
      optimizer: Optimizer of the network's parameters.
      placement: Layout of the parameters on the devices.
      workdir: Folder of the run.
      check: Raises UserError if another experiment cannot be trained on the same data.
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
