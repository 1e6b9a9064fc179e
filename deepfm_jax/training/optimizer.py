"""From optimizer settings to an optax transformation."""

from typing import Any

import jax
import optax

from deepfm_jax.training.settings import OptimizerSettings

_OPTIMIZERS = {"adam": optax.adam, "adagrad": optax.adagrad, "sgd": optax.sgd}


def is_table(path: tuple) -> bool:
    """Whether a parameter's path lies in the embedding table."""
    return any(getattr(key, "key", None) == "table" for key in path)


def _is_dense_kernel(path: tuple) -> bool:
    return not is_table(path) and getattr(path[-1], "key", None) == "kernel"


def learning_rate_schedule(settings: OptimizerSettings, total_steps: int) -> optax.Schedule:
    """Learning rate by step; a plateau's cuts are the train state's (see ``TrainState``)."""
    if settings.schedule == "warmup_cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if settings.warmup_steps else settings.learning_rate,
            settings.learning_rate,
            settings.warmup_steps,
            max(total_steps, settings.warmup_steps + 1),
        )
    return optax.constant_schedule(settings.learning_rate)


def create_optimizer(settings: OptimizerSettings, total_steps: int) -> optax.GradientTransformation:
    """L2 terms, then clipping, then the optimizer.

    L2 is added to the gradient before clipping and before Adam's moments, as the published
    recipes do it; decoupled weight decay would be another regulariser.
    """
    chain: list[optax.GradientTransformation] = []
    for strength, chosen in (
        (settings.embedding_l2, is_table),
        (settings.dense_l2, _is_dense_kernel),
    ):
        if strength:
            chain.append(optax.add_decayed_weights(strength, mask=_mask(chosen)))
    if settings.clip_norm:
        chain.append(optax.clip_by_global_norm(settings.clip_norm))
    chain.append(_OPTIMIZERS[settings.name](learning_rate_schedule(settings, total_steps)))
    return optax.chain(*chain)


def _mask(chosen):
    def mask(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: chosen(path), params)

    return mask
