"""What every model of ``MODELS`` must hold."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepfm_jax import MODELS, DeepFM, UserError, build_model
from tests import references

DIMS = (4, 3, 6, 2)
HYPERPARAMETERS = {
    "lr": {},
    "fm": {"embed_dim": 3, "init_std": 0.5},
    "deepfm": {"embed_dim": 3, "mlp_dims": (5, 4), "dropout": 0.3, "init_std": 0.5},
}

every_model = pytest.mark.parametrize("name", sorted(MODELS))


def drawn(name, batch=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, dim, batch) for dim in DIMS], axis=1).astype(np.int32)
    values = rng.normal(1, 0.5, (batch, len(DIMS))).astype(np.float32)
    model = build_model(name, DIMS, HYPERPARAMETERS[name])
    params = model.init(jax.random.key(seed), ids)["params"]
    # What starts at zero would hide its part of the formula.
    leaves, tree = jax.tree.flatten(params)
    leaves = [leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32) for leaf in leaves]
    params = jax.tree.unflatten(tree, leaves)
    return model, params, ids, values


def test_every_model_has_a_reference_and_hyperparameters():
    assert MODELS.keys() == references.MODELS.keys() == HYPERPARAMETERS.keys()


@every_model
def test_equals_the_reference(name):
    model, params, ids, values = drawn(name)
    logits = model.apply({"params": params}, ids, values)
    expected = references.MODELS[name](params, DIMS, ids, values)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@every_model
def test_no_values_means_ones(name):
    model, params, ids, _ = drawn(name)
    logits = model.apply({"params": params}, ids)
    expected = references.MODELS[name](params, DIMS, ids, np.ones(ids.shape))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@every_model
def test_gradient_of_the_logloss_equals_finite_differences(name):
    model, params, ids, values = drawn(name)
    labels = np.array([0, 1, 1, 0, 1, 0])

    def loss(p):
        logits = model.apply({"params": p}, ids, values)
        return jnp.mean(jax.nn.softplus(logits) - labels * logits)

    gradient = jax.grad(loss)(params)
    flat, tree = jax.tree.flatten_with_path(params)
    for index, (path, leaf) in enumerate(flat):

        def reference(changed, index=index):
            leaves = [array for _, array in flat]
            leaves[index] = changed
            changed_params = jax.tree.unflatten(tree, leaves)
            return references.logloss(
                references.MODELS[name](changed_params, DIMS, ids, values), labels
            )

        np.testing.assert_allclose(
            jax.tree.leaves(gradient)[index],
            references.numeric_gradient(reference, leaf),
            rtol=1e-4,
            atol=2e-6,
            err_msg=jax.tree_util.keystr(path),
        )


@every_model
def test_rows_do_not_depend_on_each_other(name):
    model, params, ids, values = drawn(name)
    together = model.apply({"params": params}, ids, values)
    alone = [model.apply({"params": params}, ids[b : b + 1], values[b : b + 1]) for b in range(6)]
    np.testing.assert_allclose(together, jnp.concatenate(alone), rtol=1e-5, atol=1e-6)


@every_model
def test_logits_keep_their_shape_for_one_row(name):
    model, params, ids, values = drawn(name, batch=1)
    chex.assert_shape(model.apply({"params": params}, ids, values), (1,))


@every_model
def test_ids_out_of_range_are_refused(name):
    model, params, ids, values = drawn(name)
    ids[2, 1] = 3
    with pytest.raises(UserError, match=r"ids\[2, 1\] = 3 is out of range: field 1 has 3 rows"):
        model.apply({"params": params}, ids, values)


@every_model
def test_from_rows_is_the_model_without_its_lookup(name):
    model, params, ids, values = drawn(name)
    rows = model.apply({"params": params}, ids, method=lambda m, i: m.table(i))
    logits = model.apply({"params": params}, rows, values, method="from_rows")
    chex.assert_trees_all_equal(logits, model.apply({"params": params}, ids, values))


@every_model
def test_serves_as_an_nnx_module(name):
    model, params, ids, values = drawn(name)
    wrapped = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0)).lazy_init(ids)
    nnx.update(wrapped, jax.tree.map(nnx.Param, params))
    np.testing.assert_allclose(
        wrapped(ids, values), model.apply({"params": params}, ids, values), rtol=1e-6
    )


def test_deepfm_with_a_zeroed_tower_is_fm():
    model, params, ids, values = drawn("deepfm")
    params["tower"] = jax.tree.map(jnp.zeros_like, params["tower"])
    fm = build_model("fm", DIMS, HYPERPARAMETERS["fm"])
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        fm.apply({"params": {"table": params["table"], "bias": params["bias"]}}, ids, values),
        atol=1e-6,
    )


def test_fm_with_zero_vectors_is_lr():
    model, params, ids, values = drawn("fm")
    params["table"]["embedding"] *= 0
    lr = build_model("lr", DIMS, {})
    lr_params = {"table": {"first_order": params["table"]["first_order"]}, "bias": params["bias"]}
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        lr.apply({"params": lr_params}, ids, values),
        atol=1e-6,
    )


def test_both_halves_of_deepfm_move_one_embedding():
    model, params, ids, _ = drawn("deepfm")
    tables = [path for path, _ in jax.tree.leaves_with_path(params) if "table" in str(path)]
    assert len(tables) == 2  # first_order and embedding, shared by the FM and the tower

    def gradient(p):
        return jax.grad(lambda q: model.apply({"params": q}, ids).sum())(p)["table"]["embedding"]

    no_tower = {**params, "tower": jax.tree.map(jnp.zeros_like, params["tower"])}
    assert float(jnp.abs(gradient(params) - gradient(no_tower)).max()) > 1e-3


def test_dropout_acts_in_training_only():
    model, params, ids, values = drawn("deepfm")

    def trained(seed):
        return model.apply(
            {"params": params}, ids, values, train=True, rngs={"dropout": jax.random.key(seed)}
        )

    assert not np.allclose(trained(0), trained(1))
    chex.assert_trees_all_equal(trained(0), trained(0))


def test_the_default_model_is_an_ordinary_flax_module():
    model = DeepFM(field_dims=[3, 4])
    assert isinstance(model, nn.Module)
    params = model.init(jax.random.key(0), jnp.zeros((2, 2), jnp.int32))["params"]
    assert set(params) == {"table", "bias", "tower"}


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("depfm", {}, "model.name='depfm' is unknown"),
        ("deepfm", {"embed_dims": 8}, "model.embed_dims: deepfm has no such .* 'embed_dim'"),
        ("lr", {"embed_dim": 8}, "model.embed_dim: lr has no such hyperparameter"),
        ("fm", {"field_dims": (1,)}, "model.field_dims"),
    ],
)
def test_a_misspelt_model_is_named(name, hyperparameters, message):
    with pytest.raises(UserError, match=message):
        build_model(name, DIMS, hyperparameters)
