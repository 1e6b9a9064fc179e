"""A first stage: another model is trained, and the run starts from its best weights."""

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

# Folder of the stage's run, in that of the run.
STAGE_FOLDER = "pretraining"


class PretrainingSource:
    """The best weights of the stage before, which ``start`` trains first."""

    digest = ""

    def __init__(self, run: FreshRun):
        """Builds both models abstractly.

        Raises:
          UserError: the stage's settings are wrong, or see ``shared_parameters``.
        """
        stage = run.experiment.first_stage
        assert stage is not None
        run.check(stage)
        self._run, self._stage = run, stage
        self._network = Network(stage.build_model(run.encoder), run.network.head)
        shapes = (weights_shapes(network) for network in (run.network, self._network))
        self._shared = shared_parameters(*shapes)

    def start(self, state: TrainState) -> TrainState:
        """Trains the stage, or resumes it, and takes its weights over."""
        run, folder = self._run, pathlib.Path(self._run.workdir) / STAGE_FOLDER
        run.train(self._stage, folder)
        weights = restore_best(folder, weights_layout(self._network, run.placement))
        return with_pretrained(state, run.optimizer, weights, self._shared)


def shared_parameters(weights: Weights, pretrained: Weights) -> set[tuple]:
    """Paths of the parameters that both have, with one shape.

    Args:
      weights: Of the model that starts, as ``weights_shapes`` gives them: rows that fill up stripes
        could make two tables of other rows alike.
      pretrained: Of the model that was trained before it, likewise.

    Raises:
      UserError: there are none; or both have a table and its shapes differ, so that what the stage
        before has learnt would be lost. Towers of two models may well differ.
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
                f"{list(found[path].shape)} in the stage before; set model.embed_dim and "
                "pretraining.model.embed_dim so that they agree"
            )
    if not shared:
        raise UserError(
            "pretraining: the two models have no parameter of one name and shape; take a stage "
            "before with a table of the same kind"
        )
    return shared


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def with_pretrained(
    state: TrainState, optimizer: Optimizer, pretrained: Weights, shared: set[tuple]
) -> TrainState:
    """A state before its first step, with the parameters that ``pretrained`` shares with it.

    Batch norm's statistics are not taken over: they belong to layers that start anew.

    Args:
      state: A fresh one.
      optimizer: What moves it.
      pretrained: Laid out as the state's weights are.
      shared: See ``shared_parameters``.

    Source: Zhang et al. 2016, Sec. 3.1 (arXiv 1601.02376): FNN starts from an FM. Deviation: its
      hidden layers, which start at random here, are trained one by one before the fine-tuning
      there, as restricted Boltzmann machines by contrastive divergence.
    """
    weights = state.weights
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    params = jax.tree.map_with_path(
        lambda path, leaf: found[path] if path in shared else leaf, weights.params
    )
    if hosts.is_primary():
        print(f"from pretraining: {', '.join(sorted(map(_name, shared)))}")
    return started_from(state, optimizer, Weights(params, weights.batch_stats))
