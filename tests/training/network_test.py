import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import DeepFM, Feature, UserError
from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
from deepfm_jax.embedding import restripe
from deepfm_jax.heads import SharedBottom
from deepfm_jax.models import Model, Outputs
from deepfm_jax.training.network import Network, inputs_of
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings
from deepfm_jax.training.state import create_state, placement_for
from deepfm_jax.training.step import make_score_step, make_train_step

# Several slots, shared rows, dense numbers, and vectors of other lengths.
MIXED = (
    21,
    Feature(13, slots=4, pooling="mean"),
    Feature(21, slots=3, shared_with=0, pooling="sqrtn"),
    Feature(size=3),
    Feature(40, dim=2),
    Feature(9, slots=2, dim=2),
    Feature(17, dim=0),
    7,
)
BATCH = 32
# A step then depends on every gradient twice: by its direction, and by the norm of all.
CLIPPED = {"clip_norm": 0.05}


def batch_of(seed):
    rng = np.random.default_rng(seed)
    ids, values = [], []
    for feature in (f if isinstance(f, Feature) else Feature(f) for f in MIXED):
        if feature.size:
            continue
        column = rng.integers(0, feature.rows, (BATCH, feature.slots))
        empty = (rng.random(column.shape) < 0.4) & (feature.slots > 1)
        ids.append(np.where(empty, -1, column))
        values.append(np.where(empty, 0.0, 1.0))
    return {
        "ids": np.concatenate(ids, axis=1).astype(np.int32),
        "values": np.concatenate(values, axis=1).astype(np.float32),
        "dense": rng.normal(size=(BATCH, 3)).astype(np.float32),
        "labels": rng.integers(0, 2, (BATCH, 2)).astype(np.float32),
        "mask": np.ones(BATCH, np.float32),
    }


def network():
    model = DeepFM(MIXED, embed_dim=4, mlp_dims=(8,), dropout=0.0, init_std=0.3)
    return Network(model, SharedBottom(("a", "b"), mlp_dims=(3,)))


def trained(path, devices=1, steps=20, name="sgd", **settings):
    optimizer = create_optimizer(OptimizerSettings(name, learning_rate=0.1, **settings), 1, path)
    mesh = create_mesh(jax.devices()[:devices])
    placement = placement_for(optimizer, mesh)
    state = create_state(network(), optimizer, 0, placement)
    step = make_train_step(network(), optimizer, placement)
    spread = batch_sharding(mesh, BATCH)
    for seed in range(steps):
        state, metrics = step(state, jax.device_put(batch_of(seed), spread))
    batch = jax.device_put(batch_of(steps), spread)
    logits = make_score_step(network(), placement)(state.weights, inputs_of(batch))
    rows = {name: rows for space in network().model.layout.spaces for name, rows, _ in space.arrays}
    table = {
        name: np.asarray(restripe(array, placement.stripes, 1, rows[name]))
        for name, array in state.params["table"].items()
    }
    return {**state.params, "table": table}, float(metrics["loss"]), np.asarray(logits)


def test_sparse_steps_equal_dense_ones_with_every_kind_of_field():
    sparse, dense = trained("sparse", **CLIPPED), trained("dense", **CLIPPED)
    chex.assert_trees_all_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_eight_devices_train_every_kind_of_field_as_one_does():
    many = trained("sparse", devices=8, name="adagrad", **CLIPPED)
    one = trained("sparse", name="adagrad", **CLIPPED)
    chex.assert_trees_all_close(many, one, rtol=1e-3, atol=1e-4)


def test_the_table_has_an_array_for_each_length_of_vectors():
    params, _ = network().init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params["table"]) == {
        "first_order": (107,),
        "embedding": (41, 4),
        "embedding_2": (49, 2),
    }
    assert set(params) == {"table", "inputs", "bias", "tower", "head"}


def test_a_head_leaves_the_first_weights_of_the_model_as_they_are():
    model = network().model
    alone, _ = Network(model).init(jax.random.key(0))
    params, _ = network().init(jax.random.key(0))
    assert set(params) - set(alone) == {"head"}
    chex.assert_trees_all_equal({name: params[name] for name in alone}, alone)


def batch_norm_moved(rows):
    """How far the running statistics move in a batch of ``rows`` examples and padding."""
    model = DeepFM((21, 7), embed_dim=4, mlp_dims=(8,), batch_norm=True, init_std=0.3)
    params, stats = Network(model).init(jax.random.key(0))
    ids = np.arange(rows)[np.arange(BATCH) % rows]
    batch = {
        "ids": np.stack([ids % 21, ids % 7], axis=1).astype(np.int32),
        "labels": np.ones((BATCH, 1), np.float32),
        "mask": (np.arange(BATCH) < rows).astype(np.float32),
    }
    _, moved = Network(model).loss(params, stats, batch, jax.random.key(0))
    return jax.tree.map(lambda old, new: np.abs(np.asarray(new - old)).max(), stats, moved)


def test_batch_norm_moves_by_the_share_of_real_examples():
    variance = batch_norm_moved(1)["tower"]["batch_norm_0"]["var"]
    # One example has no variance: a full step would move 1 by a tenth towards 0.
    chex.assert_trees_all_close(variance, 0.1 / BATCH, rtol=1e-4, atol=0)
    assert batch_norm_moved(BATCH)["tower"]["batch_norm_0"]["var"] > 0.05


def test_a_model_with_a_part_named_as_the_head_is_refused_under_one_with_parameters():
    class Named(Model):
        @nn.compact
        def interact(self, fields, *, train):
            logit = nn.Dense(1, name="head")(fields.first_order)[:, 0]
            return Outputs(logit, fields.first_order)

    params, _ = Network(Named((9, 7))).init(jax.random.key(0))
    assert params["head"].keys() == {"kernel", "bias"}
    with pytest.raises(UserError, match="the model has a part named 'head'"):
        Network(Named((9, 7)), SharedBottom(("a", "b"))).init(jax.random.key(0))
