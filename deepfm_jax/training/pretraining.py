"""What a model takes over from one that was trained before it."""

import functools

import jax

from deepfm_jax import hosts
from deepfm_jax.errors import UserError
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.state import TrainState, Weights, row_slots


def shared_parameters(weights: Weights, pretrained: Weights) -> set[tuple]:
    """Paths of the parameters that both have in one shape.

    Args:
      weights: Of the model that starts, as ``weights_shapes`` gives them: rows that fill up stripes
        could make two tables of other rows alike.
      pretrained: Of the model that was trained before it, likewise.

    Raises:
      UserError: there are none.
    """
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    shared = {
        path
        for path, leaf in jax.tree.leaves_with_path(weights.params)
        if path in found and found[path].shape == leaf.shape
    }
    if not shared:
        raise UserError(
            "pretraining: the two models have no parameter of one name and shape; give both the "
            "same embed_dim, and a table of the same kind"
        )
    return shared


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

    Source: Zhang et al. 2016, Sec. 3.1 (arXiv 1601.02376): FNN starts from an FM.
    """
    weights = state.weights
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    params = jax.tree.map_with_path(
        lambda path, leaf: found[path] if path in shared else leaf, weights.params
    )
    names = sorted(jax.tree_util.keystr(path, simple=True, separator=".") for path in shared)
    if hosts.is_first():
        print(f"from pretraining: {', '.join(names)}")
    return started_from(state, optimizer, Weights(params, weights.batch_stats))


def started_from(state: TrainState, optimizer: Optimizer, weights: Weights) -> TrainState:
    """A state before its first step with other weights, which lie as its own do.

    What row optimizers keep is made anew, for FTRL's slots hold the weights themselves: old ones
    would undo the exchange.
    """
    shardings = jax.tree.map(lambda slot: slot.sharding, state.slots)
    fresh = jax.jit(functools.partial(row_slots, optimizer), out_shardings=shardings)
    slots = fresh(weights.params["table"])
    return state.with_weights(weights).replace(slots=slots)  # pyright: ignore[reportAttributeAccessIssue]
