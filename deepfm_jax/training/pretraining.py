"""What a model takes over from one that was trained before it."""

import jax

from deepfm_jax.errors import UserError
from deepfm_jax.training.state import Weights


def with_pretrained(weights: Weights, pretrained: Weights) -> Weights:
    """``weights`` with the parameters that ``pretrained`` has under the same path, in one shape.

    Batch norm's statistics are not taken over: they belong to layers that start anew.

    Source: Zhang et al. 2016, Sec. 3.1 (arXiv 1601.02376): FNN starts from an FM.

    Raises:
      UserError: the two models have no parameter in common.
    """
    found = dict(jax.tree.leaves_with_path(pretrained.params))
    taken = []

    def choose(path, leaf):
        other = found.get(path)
        if other is None or other.shape != leaf.shape:
            return leaf
        taken.append(jax.tree_util.keystr(path, simple=True, separator="."))
        return other

    params = jax.tree.map_with_path(choose, weights.params)
    if not taken:
        raise UserError(
            "pretraining: the two models have no parameter of one name and shape; "
            "set pretraining.model.embed_dim to that of the model"
        )
    print(f"from pretraining: {', '.join(taken)}")
    return Weights(params, weights.batch_stats)
