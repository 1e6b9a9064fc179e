"""The train step and the scoring step, jitted."""

from collections.abc import Callable
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deepfm_jax.heads import OneTask
from deepfm_jax.partitioning import state_shardings
from deepfm_jax.training.state import TrainState, abstract_state
from deepfm_jax.typing import Logits

Batch: TypeAlias = dict[str, jax.Array]
Metrics: TypeAlias = dict[str, jax.Array]
TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation, head: OneTask, mesh: Mesh
) -> TrainStep:
    """``train_step(state, batch) -> (state, metrics)``, jitted, the state donated.

    ``batch`` has ``ids`` [B, S], ``values`` [B, S], ``labels`` [B, 1], ``mask`` [B]; ``metrics``
    has the ``loss`` of the batch before the update, without L2 terms.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        dropout_key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

        def loss_fn(params):
            logits, changed = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch["ids"],
                batch["values"],
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            return head.loss(logits, batch["labels"], batch["mask"]), changed

        (loss, changed), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: state.rate_scale * update, updates)
        state = state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=changed.get("batch_stats", {}),
            opt_state=opt_state,
        )
        return state, {"loss": loss}

    # Without fixed output shardings the compiler may choose others, and the second call recompiles.
    shardings = state_shardings(abstract_state(model, optimizer), mesh)
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))


def make_score_step(model: nn.Module) -> Callable[[Any, Any, Any, Any], Logits]:
    """``score(params, batch_stats, ids, values) -> logits [B]``, jitted."""

    @jax.jit
    def score(params, batch_stats, ids, values):
        return model.apply({"params": params, "batch_stats": batch_stats}, ids, values)

    return score


def cut_learning_rate(state: TrainState, factor: float, floor_scale: float) -> TrainState:
    """The state with its learning rate multiplied by ``factor``, not below ``floor_scale``."""
    scale = jnp.maximum(state.rate_scale * factor, floor_scale)
    scale = jax.device_put(scale, state.rate_scale.sharding)
    return state.replace(rate_scale=scale)  # pyright: ignore[reportAttributeAccessIssue]
