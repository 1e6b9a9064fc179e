"""The pretraining stage: trains another model first; the run starts from its best weights."""

import pathlib

import jax

from deepfm_jax.distributed import hosts
from deepfm_jax.errors import UserError
from deepfm_jax.training.checkpoint import restore_best
from deepfm_jax.training.fresh_run import FreshRun
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.parameter_groups import is_table
from deepfm_jax.training.state import (
    TrainState,
    Weights,
    started_from,
    weights_layout,
    weights_shapes,
)

# Folder of the stage's run, inside that of the run.
STAGE_FOLDER = "pretraining"


class PretrainingSource:
    """The best weights of the pretraining stage, which ``start`` trains first."""

    digest = ""

    def __init__(self, run: FreshRun):
        """Builds both models abstractly.

        Raises:
          UserError: the stage's settings are wrong; see also ``shared_parameters``.
        """
        stage = run.experiment.first_stage
        assert stage is not None
        run.check(stage)
        self._run, self._stage = run, stage
        self._network = Network(stage.build_model(run.encoder), run.network.head)
        shapes = (weights_shapes(network) for network in (run.network, self._network))
        self._shared = shared_parameters(*shapes)

    def start(self, state: TrainState) -> TrainState:
        """Trains or resumes the stage, and copies its weights."""
        run, folder = self._run, pathlib.Path(self._run.workdir) / STAGE_FOLDER
        run.train(self._stage, folder)
        weights = restore_best(folder, weights_layout(self._network, run.placement))
        return with_pretrained(state, run.optimizer, weights, self._shared)


def shared_parameters(weights: Weights, pretrained: Weights) -> set[tuple]:
    """Paths of the parameters that two models share by name and shape.

    Args:
      weights: Shapes from ``weights_shapes`` of the model that starts: with rows that pad the
        stripes, tables of different lengths could look alike.
      pretrained: Likewise, of the pretrained model.

    Raises:
      UserError: no parameter is shared; or both models have a table and the shapes differ, so that
        what the pretraining stage learned would be lost. Towers may differ.
    """
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    shared = set()
    for path, leaf in jax.tree.leaves_with_path(weights.params):
        if path not in found:
            continue
        if leaf.shape == found[path].shape:
            shared.add(path)
        elif is_table(path):
            raise UserError(
                f"pretraining: {_name(path)} is {list(leaf.shape)} in the model and "
                f"{list(found[path].shape)} in the pretraining stage; set model.embed_dim and "
                "pretraining.model.embed_dim so that they agree"
            )
    if not shared:
        raise UserError(
            "pretraining: the two models share no parameter by name and shape; use a pretraining "
            "stage with a table of the same kind"
        )
    return shared


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def with_pretrained(
    state: TrainState, optimizer: Optimizer, pretrained: Weights, shared: set[tuple]
) -> TrainState:
    """Replaces the parameters that a fresh state shares with ``pretrained``.

    Batch norm's statistics are not copied: they belong to layers that start anew.

    Args:
      state: A fresh state.
      optimizer: Its optimizer.
      pretrained: Pretrained weights, laid out like the state's.
      shared: See ``shared_parameters``.

    Source: Zhang et al. 2016, Sec. 3.1 (arXiv 1601.02376): FNN starts from an FM. Deviation: the
      paper trains its hidden layers one by one before the fine-tuning, as restricted Boltzmann
      machines by contrastive divergence; here they start at random.
    """
    weights = state.weights
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    params = jax.tree.map_with_path(
        lambda path, leaf: found[path] if path in shared else leaf, weights.params
    )
    if hosts.is_primary():
        print(f"from pretraining: {', '.join(sorted(map(_name, shared)))}")
    return started_from(state, optimizer, Weights(params, weights.batch_stats))
