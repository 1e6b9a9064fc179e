"""The train state: everything that a step changes, in one pytree."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deepfm_jax.distributed.partitioning import DEFAULT_PARTITIONING, Partitioning, Placement
from deepfm_jax.embedding import create_scratches, from_stored, kind_of, to_stored
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.typing import PyTree


@flax.struct.dataclass
class Weights:
    """The part of a state that scoring needs.

    Attributes:
      params: Parameters of the model, including the table's under ``table``.
      batch_stats: Batch norm's running statistics; empty without batch norm.
    """

    params: PyTree
    batch_stats: PyTree


@flax.struct.dataclass
class TrainState:
    """The state that ``train_step`` takes and returns.

    Attributes:
      step: Number of finished steps, int32 scalar.
      params: Parameters of the model, including the table's under ``table``: the model's own
        tree, whichever path the table is trained on. (A bfloat16 table is stored as its bits, see
        ``embedding.to_stored``; ``weights`` has it as the model reads it.)
      batch_stats: Batch norm's running statistics; empty without batch norm.
      opt_state: State of the optax transformation: of all parameters on the dense path, of all
        except the table's on the sparse path.
      row_state: The row optimizers' state for each array of the table; empty on the dense path.
      frozen: Marks of frozen rows, bool[V], for each array of the table that has some. Usually
        empty.
      scratch: int32[V] for the slot map of each space of the table; empty if nothing uses it.
        Its content has no meaning and is not in checkpoints: it is part of the state to be
        donated, so that it is never filled or copied.
      rate_scale: Factor on every update, float32 scalar: the cuts of the plateau schedule. (Each
        optimizer here is linear in its learning rate, so scaling updates scales the rate.)
      rng: Key data of dropout; each step folds in its number.
    """

    # Arrays, or in their place shapes or shardings: the class also describes layouts.
    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    row_state: PyTree
    frozen: PyTree
    scratch: PyTree
    rate_scale: PyTree
    rng: PyTree

    @property
    def weights(self) -> Weights:
        """The weights as scoring reads them."""
        return Weights(_with_table(self.params, from_stored), self.batch_stats)

    def with_weights(self, weights: Weights) -> "TrainState":
        """Returns this state with other weights."""
        params = _with_table(weights.params, to_stored)
        return self.replace(params=params, batch_stats=weights.batch_stats)  # pyright: ignore[reportAttributeAccessIssue]


def split_table(params: PyTree) -> tuple[PyTree, PyTree]:
    """Splits parameters into those outside the table, and the table's arrays by name."""
    return {k: v for k, v in params.items() if k != "table"}, params["table"]


def _with_table(params: PyTree, function: Callable[[jax.Array], jax.Array]) -> PyTree:
    return {**params, "table": jax.tree.map(function, params["table"])}


def init_weights(network: Network, key: jax.Array, stripes: int = 1) -> Weights:
    """Initializes the weights of a network; see ``Network.init``."""
    return Weights(*network.init(key, stripes))


def weights_shapes(network: Network) -> Weights:
    """Shapes of a network's weights, independent of their layout."""
    return jax.eval_shape(lambda: init_weights(network, jax.random.key(0)))


def init_state(
    network: Network, optimizer: Optimizer, seed: int, placement: Placement
) -> TrainState:
    """Creates the state before the first step, laid out as ``placement`` specifies. Pure."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed))
    weights = init_weights(network, init_key, placement.stripes)
    moved_by_optax, row_state, frozen, scratch = weights.params, {}, {}, {}
    if optimizer.has_frozen_rows:
        frozen = {"embedding": jnp.zeros(len(weights.params["table"]["embedding"]), bool)}
    if optimizer.rows is not None:
        moved_by_optax, table = split_table(weights.params)
        row_state = init_row_state(optimizer, table)
        scratch = create_scratches(network.model.layout, placement.platform, table)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=_with_table(weights.params, to_stored),
        batch_stats=weights.batch_stats,
        opt_state=optimizer.dense.init(moved_by_optax),
        row_state=row_state,
        frozen=frozen,
        scratch=scratch,
        rate_scale=jnp.ones((), jnp.float32),
        rng=jax.random.key_data(dropout_key),
    )


def init_row_state(optimizer: Optimizer, table: Mapping[str, jax.Array]) -> PyTree:
    """Creates the row state of a table before its first step; empty on the dense path."""
    if optimizer.rows is None:
        return {}
    return {name: optimizer.rows[kind_of(name)].init(array) for name, array in table.items()}


def started_from(state: TrainState, optimizer: Optimizer, weights: Weights) -> TrainState:
    """Returns a fresh state with other weights, which must be laid out like its own.

    The row state is created anew: FTRL's contains the weights themselves, so the old row state
    would undo the replacement.
    """
    shardings = jax.tree.map(lambda array: array.sharding, state.row_state)
    fresh = jax.jit(functools.partial(init_row_state, optimizer), out_shardings=shardings)
    row_state = fresh(weights.params["table"])
    return state.with_weights(weights).replace(row_state=row_state)  # pyright: ignore[reportAttributeAccessIssue]


def placement_for(
    optimizer: Optimizer, mesh: Mesh, partitioning: Partitioning = DEFAULT_PARTITIONING
) -> Placement:
    """The placement for an optimizer: striped table on the sparse path, whole on the dense path."""
    return Placement(mesh, optimizer.rows is not None, partitioning)


def create_state(
    network: Network, optimizer: Optimizer, seed: int, placement: Placement
) -> TrainState:
    """Creates the state before the first step directly on its devices.

    Shapes come first, then shardings, then the arrays, each on its own devices: a table larger
    than one device is never on one.
    """
    shardings = state_shardings(network, optimizer, placement)
    init = jax.jit(lambda: init_state(network, optimizer, seed, placement), out_shardings=shardings)
    return init()


def abstract_state(network: Network, optimizer: Optimizer, placement: Placement) -> Any:
    """Shapes and dtypes of the state, without arrays."""
    return jax.eval_shape(lambda: init_state(network, optimizer, 0, placement))


def state_shardings(network: Network, optimizer: Optimizer, placement: Placement) -> Any:
    """The sharding of each array of the state."""
    return placement.shardings(abstract_state(network, optimizer, placement))


def weights_layout(network: Network, placement: Placement) -> Weights:
    """Shapes, dtypes and shardings of a network's weights, without arrays."""
    shapes = jax.eval_shape(lambda: init_weights(network, jax.random.key(0), placement.stripes))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        placement.shardings(shapes),
    )


def parameter_count(params: PyTree) -> int:
    """Number of scalars in the model's parameters, including frozen ones."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
