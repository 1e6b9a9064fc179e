"""Small models on inputs of every kind, as plain Flax modules: the case of the suites over them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deepfm_jax import MODELS, Feature
from tests.model_variants import VARIANTS
from tests.small_models import SMALL, small_model

DEVICES = 8
BATCH = 16
# Numbers of rows that eight devices can split. To Wide & Deep the last field is a cross.
FIELDS = [
    8,
    Feature(16, slots=2, pooling="mean"),
    Feature(size=2),
    Feature(16, slots=2, pooling="sqrtn", shared_with=1),
    Feature(8, dim=2),
    16,
]
ONE_SLOT = [8, 16, 16]
every_model = pytest.mark.parametrize("name", sorted(MODELS))
every_variant = pytest.mark.parametrize("variant", VARIANTS)
# Sums of float32 in another order.
close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-5)
# Sums of a bfloat16 table's gradients, which are rounded to bfloat16 at another place.
nearly = functools.partial(chex.assert_trees_all_close, rtol=2e-2, atol=2e-3)


def options(name, dtype):
    """Hyperparameters of a model that computes and stores as much as it can in ``dtype``."""
    has_tower = "mlp_dims" in SMALL[name]
    return {"table_dtype": dtype, **({"compute_dtype": dtype} if has_tower else {})}


@functools.cache
def case(name, dtype="float32", several=True):
    """A model, its variables, and inputs: ids with empty slots, values and dense numbers."""
    rng = np.random.default_rng(0)
    model = small_model(name, FIELDS if several else ONE_SLOT, **options(name, dtype))
    tops = (8, 16, 16, 16, 16, 8, 16) if several else ONE_SLOT
    ids = np.stack([rng.integers(0, top, BATCH) for top in tops], axis=1).astype(np.int32)
    inputs = (ids,)
    if several:
        values = rng.normal(1, 0.5, ids.shape).astype(np.float32)
        empty = rng.random(ids.shape) < 0.4
        empty[:, [0, 5, 6]] = False
        empty[0] = [False, True, True, True, True, False, False]
        ids[empty], values[empty] = -1, 0
        inputs = (ids, values, rng.normal(size=(BATCH, 2)).astype(np.float32))
    variables = model.init(jax.random.key(0), *inputs)
    moved = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape), variables)
    variables = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), moved, variables)
    return model, variables, inputs


def loss_of(model):
    """The mean logloss of logits, against labels that alternate, and the logits."""

    def loss(variables, *inputs):
        logits = model.apply(variables, *inputs)
        signs = jnp.where(inputs[0][:, 0] % 2 == 0, 1.0, -1.0)
        return jnp.mean(jax.nn.softplus(signs * logits)), logits

    return jax.value_and_grad(loss, has_aux=True)


@functools.cache
def expected(name, dtype="float32", several=True):
    """Logits and gradient on one device."""
    model, variables, inputs = case(name, dtype, several)
    (_, logits), gradient = jax.jit(loss_of(model))(variables, *inputs)
    return jax.device_get((logits, gradient))


def laid_out(variables, inputs, table=None, mesh=None):
    """Inputs split over the batch; the table's arrays as `table` says, all else on every device."""
    mesh = jax.sharding.get_mesh() if mesh is None else mesh

    def put(path, leaf):
        spec = table if table and "table" in jax.tree_util.keystr(path) else P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    inputs = [jax.device_put(array, NamedSharding(mesh, P("d"))) for array in inputs]
    return jax.tree.map_with_path(put, variables), inputs
