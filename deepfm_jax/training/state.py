"""The train state: everything a step changes, in one pytree."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deepfm_jax.partitioning import state_shardings
from deepfm_jax.typing import PyTree


@flax.struct.dataclass
class TrainState:
    """What ``train_step`` takes and returns.

    Attributes:
      step: Steps done, int32 scalar.
      params: Parameters of the model.
      batch_stats: Batch norm's running statistics; empty without batch norm.
      opt_state: State of the optax transformation.
      rate_scale: Factor on every update, float32 scalar: the cuts of the plateau schedule. (Each
        optimizer here is linear in its learning rate, so a factor on updates is one on the rate.)
      rng: Key data of dropout; each step folds its number in.
    """

    # Arrays, and in their place shapes or shardings: a state is also the layout of one.
    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    rate_scale: PyTree
    rng: PyTree


def init_state(model: nn.Module, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step. Pure, so that it can be traced for its shapes."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed))
    fields = len(model.field_dims)  # pyright: ignore[reportAttributeAccessIssue]
    variables = model.init(init_key, jnp.zeros((1, fields), jnp.int32))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        rate_scale=jnp.ones((), jnp.float32),
        rng=jax.random.key_data(dropout_key),
    )


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
    """The state before the first step, created where it will live.

    Shapes come first, then shardings, then the arrays, each on its own devices: a table larger
    than one device is never on one.
    """
    shardings = state_shardings(abstract_state(model, optimizer), mesh)
    return jax.jit(lambda: init_state(model, optimizer, seed), out_shardings=shardings)()


def abstract_state(model: nn.Module, optimizer: optax.GradientTransformation) -> Any:
    """Shapes and dtypes of the state, without arrays."""
    return jax.eval_shape(lambda: init_state(model, optimizer, 0))


def parameter_count(params: PyTree) -> int:
    """Number of trained scalars."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
