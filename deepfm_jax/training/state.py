"""The train state: everything a step changes, in one pytree."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deepfm_jax.distributed.partitioning import (
    DEFAULT_PARTITIONING,
    SHARD_AXIS,
    Partitioning,
    state_shardings,
)
from deepfm_jax.embedding import create_scratch, from_stored, needs_scratch, to_stored
from deepfm_jax.features import slot_counts
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.typing import PyTree


@flax.struct.dataclass
class Weights:
    """What scoring needs of a state.

    Attributes:
      params: Parameters of the model, the table's among them under ``table``.
      batch_stats: Batch norm's running statistics; empty without batch norm.
    """

    params: PyTree
    batch_stats: PyTree


@flax.struct.dataclass
class TrainState:
    """What ``train_step`` takes and returns.

    Attributes:
      step: Steps done, int32 scalar.
      params: Parameters of the model, the table's among them under ``table``: the model's own
        tree, whichever path the table is trained on. (A bfloat16 table is kept as its bits, see
        ``embedding.to_stored``; ``weights`` has it as the model reads it.)
      batch_stats: Batch norm's running statistics; empty without batch norm.
      opt_state: State of the optax transformation: of all parameters on the dense path, of all
        but the table's on the sparse path.
      slots: The row optimizers' state for each array of the table; empty on the dense path.
      frozen: By the table's names, for arrays with rows that no step moves: bool[V], which those
        are. Empty as a rule.
      scratch: int32[V] for the slot map; empty where nobody uses it. Its content means nothing
        and is in no checkpoint: it is here to be donated, and so never filled or copied.
      rate_scale: Factor on every update, float32 scalar: the cuts of the plateau schedule. (Each
        optimizer here is linear in its learning rate, so a factor on updates is one on the rate.)
      rng: Key data of dropout; each step folds its number in.
    """

    # Arrays, and in their place shapes or shardings: a state is also the layout of one.
    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    slots: PyTree
    frozen: PyTree
    scratch: PyTree
    rate_scale: PyTree
    rng: PyTree

    @property
    def weights(self) -> Weights:
        """The part that scoring needs."""
        return Weights(_with_table(self.params, from_stored), self.batch_stats)

    def with_weights(self, weights: Weights) -> "TrainState":
        """This state with other weights."""
        params = _with_table(weights.params, to_stored)
        return self.replace(params=params, batch_stats=weights.batch_stats)  # pyright: ignore[reportAttributeAccessIssue]


def split_table(params: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters without the table's, and the table's arrays by name."""
    return {k: v for k, v in params.items() if k != "table"}, params["table"]


def _with_table(params: PyTree, function: Callable[[jax.Array], jax.Array]) -> PyTree:
    return {**params, "table": jax.tree.map(function, params["table"])}


def init_weights(model: nn.Module, key: jax.Array, stripes: int = 1) -> Weights:
    """A model's first weights, the same on any number of stripes. Pure.

    Args:
      model: Any of ``MODELS``.
      key: Random key.
      stripes: Shards over which the table's rows are striped (see ``embedding.stripes``).
    """
    ids = jnp.zeros((1, sum(slot_counts(model.field_dims))), jnp.int32)  # pyright: ignore[reportAttributeAccessIssue]
    variables = model.init(key, ids, jnp.ones(ids.shape, jnp.float32))
    params = variables["params"]
    if stripes > 1:  # The table above, of which nothing is read, is never made under jit.
        layout = model.init(key, ids, method=lambda model, ids: model.table(ids, stripes))
        params = {**params, "table": layout["params"]["table"]}
    return Weights(params, variables.get("batch_stats", {}))


def weights_shapes(model: nn.Module) -> Weights:
    """Shapes of a model's weights, however they lie."""
    return jax.eval_shape(lambda: init_weights(model, jax.random.key(0)))


def init_state(model: nn.Module, optimizer: Optimizer, seed: int, mesh: Mesh) -> TrainState:
    """The state before the first step, as it lies on ``mesh``. Pure."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed))
    weights = init_weights(model, init_key, table_stripes(optimizer, mesh))
    moved_by_optax, slots, frozen, scratch = weights.params, {}, {}, ()
    if optimizer.has_frozen_rows:
        frozen = {"embedding": jnp.zeros(len(weights.params["table"]["embedding"]), bool)}
    if optimizer.rows is not None:
        moved_by_optax, table = split_table(weights.params)
        slots = row_slots(optimizer, table)
        if needs_scratch(mesh.devices.flat[0].platform):
            scratch = create_scratch(max(len(array) for array in table.values()))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=_with_table(weights.params, to_stored),
        batch_stats=weights.batch_stats,
        opt_state=optimizer.dense.init(moved_by_optax),
        slots=slots,
        frozen=frozen,
        scratch=scratch,
        rate_scale=jnp.ones((), jnp.float32),
        rng=jax.random.key_data(dropout_key),
    )


def row_slots(optimizer: Optimizer, table: Mapping[str, jax.Array]) -> PyTree:
    """The row optimizers' state for a table that no step has moved; empty on the dense path."""
    if optimizer.rows is None:
        return {}
    return {name: optimizer.rows[name].init(array) for name, array in table.items()}


def table_stripes(optimizer: Optimizer, mesh: Mesh) -> int:
    """Shards over which a table lies: dense updates want all of it on each device."""
    return 1 if optimizer.rows is None else mesh.shape[SHARD_AXIS]


def create_state(
    model: nn.Module,
    optimizer: Optimizer,
    seed: int,
    mesh: Mesh,
    partitioning: Partitioning = DEFAULT_PARTITIONING,
) -> TrainState:
    """The state before the first step, created where it will live.

    Shapes come first, then shardings, then the arrays, each on its own devices: a table larger
    than one device is never on one.
    """
    shardings = layout_shardings(model, optimizer, mesh, partitioning)
    init = jax.jit(lambda: init_state(model, optimizer, seed, mesh), out_shardings=shardings)
    return init()


def abstract_state(model: nn.Module, optimizer: Optimizer, mesh: Mesh) -> Any:
    """Shapes and dtypes of the state on ``mesh``, without arrays."""
    return jax.eval_shape(lambda: init_state(model, optimizer, 0, mesh))


def layout_shardings(
    model: nn.Module, optimizer: Optimizer, mesh: Mesh, partitioning: Partitioning
) -> Any:
    """The sharding of each array of the state."""
    return state_shardings(
        abstract_state(model, optimizer, mesh),
        mesh,
        striped=optimizer.rows is not None,
        rules=partitioning.rules,
    )


def weights_layout(
    model: nn.Module,
    optimizer: Optimizer,
    mesh: Mesh,
    partitioning: Partitioning = DEFAULT_PARTITIONING,
) -> Weights:
    """Shapes, dtypes and shardings of a run's weights, without arrays."""
    stripes = table_stripes(optimizer, mesh)
    shapes = jax.eval_shape(lambda: init_weights(model, jax.random.key(0), stripes))
    shardings = state_shardings(
        shapes, mesh, striped=optimizer.rows is not None, rules=partitioning.rules
    )
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def parameter_count(params: PyTree) -> int:
    """Number of scalars that the model has, frozen ones among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
