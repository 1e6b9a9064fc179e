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
from tests.model_variants import DIMS, VARIANTS, built, drawn, reference

every_variant = pytest.mark.parametrize("variant", VARIANTS)
with_dropout = pytest.mark.parametrize(
    "variant", [v for v, (_, own, shared) in VARIANTS.items() if {**own, **shared}.get("mlp_dims")]
)


def test_every_model_has_a_reference_and_a_variant():
    assert MODELS.keys() == references.MODELS.keys() == {name for name, _, _ in VARIANTS.values()}


@every_variant
def test_equals_the_reference(variant):
    model, params, ids, values = drawn(variant)
    logits = jax.jit(model.apply)({"params": params}, ids, values)
    chex.assert_shape(logits, (6,))
    chex.assert_trees_all_close(
        logits, reference(variant, params, ids, values), rtol=1e-5, atol=1e-5
    )


@every_variant
def test_no_values_means_ones(variant):
    model, params, ids, _ = drawn(variant)
    logits = model.apply({"params": params}, ids)
    expected = reference(variant, params, ids, np.ones(ids.shape))
    chex.assert_trees_all_close(logits, expected, rtol=1e-5, atol=1e-5)


@every_variant
def test_gradient_of_the_logloss_equals_finite_differences(variant):
    model, params, ids, values = drawn(variant)
    labels = np.array([0, 1, 1, 0, 1, 0])

    def loss(p):
        logits = model.apply({"params": p}, ids, values)
        return jnp.mean(jax.nn.softplus(logits) - labels * logits)

    gradient = jax.grad(loss)(params)
    flat, tree = jax.tree.flatten_with_path(params)
    for index, (path, leaf) in enumerate(flat):

        def changed_loss(changed, index=index):
            leaves = [array for _, array in flat]
            leaves[index] = changed
            logits = reference(variant, jax.tree.unflatten(tree, leaves), ids, values)
            return references.logloss(logits, labels)

        # A few entries of each array: the loops of the reference are slow.
        entries = np.random.default_rng(index).permutation(leaf.size)[:5]
        name = jax.tree_util.keystr(path)
        found = np.ravel(jax.tree.leaves(gradient)[index])[entries]
        numeric = references.numeric_gradient(changed_loss, leaf, entries=entries)
        chex.assert_trees_all_close({name: found}, {name: numeric}, rtol=1e-4, atol=2e-6)


@every_variant
def test_rows_do_not_depend_on_each_other(variant):
    model, params, ids, values = drawn(variant)
    together = model.apply({"params": params}, ids, values)
    alone = [model.apply({"params": params}, ids[b : b + 1], values[b : b + 1]) for b in range(6)]
    chex.assert_trees_all_close(together, jnp.concatenate(alone), rtol=1e-5, atol=1e-6)


@every_variant
def test_logits_keep_their_shape_for_one_row(variant):
    model, params, ids, values = drawn(variant, batch=1)
    chex.assert_shape(model.apply({"params": params}, ids, values), (1,))


@every_variant
def test_ids_out_of_range_are_refused(variant):
    model, params, ids, values = drawn(variant)
    ids[2, 1] = 3
    with pytest.raises(UserError, match=r"ids\[2, 1\] = 3 is out of range: field 1 has 3 rows"):
        model.apply({"params": params}, ids, values)


@every_variant
def test_from_rows_is_the_model_without_its_lookup(variant):
    model, params, ids, values = drawn(variant)
    rows = model.apply({"params": params}, ids, method=lambda m, i: m.table(i))
    outputs = model.apply({"params": params}, rows, values, method="from_rows")
    chex.assert_trees_all_equal(outputs.logit, model.apply({"params": params}, ids, values))
    chex.assert_tree_all_finite(outputs.hidden)
    assert len(outputs.hidden) == len(ids)


@every_variant
def test_serves_as_an_nnx_module(variant):
    model, params, ids, values = drawn(variant)
    wrapped = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0)).lazy_init(ids)
    nnx.update(wrapped, jax.tree.map(nnx.Param, params))
    chex.assert_trees_all_close(
        wrapped(ids, values), model.apply({"params": params}, ids, values), rtol=1e-6, atol=0
    )


@every_variant
def test_the_first_weights_follow_from_the_key(variant):
    model, ids = built(variant), np.zeros((1, len(DIMS)), np.int32)
    first = model.init(jax.random.key(3), ids)
    chex.assert_trees_all_equal(first, model.init(jax.random.key(3), ids))
    other = model.init(jax.random.key(4), ids)
    if VARIANTS[variant][0] != "lr":  # whose weights all start at zero
        pairs = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
        assert any(not np.array_equal(*pair) for pair in pairs)


@every_variant
def test_the_gradient_is_finite_in_training(variant):
    model, params, ids, values = drawn(variant)

    def loss(p):
        logits = model.apply(
            {"params": p}, ids, values, train=True, rngs={"dropout": jax.random.key(0)}
        )
        return jnp.sum(jax.nn.softplus(logits))

    gradient = jax.grad(loss)(params)
    chex.assert_tree_all_finite(gradient)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient["table"]))


@with_dropout
def test_dropout_acts_in_training_only(variant):
    model, params, ids, values = drawn(variant)

    def trained(seed):
        return model.apply(
            {"params": params}, ids, values, train=True, rngs={"dropout": jax.random.key(seed)}
        )

    # Small towers may drop the same units twice.
    assert not all(np.allclose(trained(0), trained(seed)) for seed in (1, 2, 3))
    chex.assert_trees_all_equal(trained(0), trained(0))
    chex.assert_trees_all_equal(
        model.apply({"params": params}, ids, values), model.apply({"params": params}, ids, values)
    )


@with_dropout
def test_batch_norm_moves_its_statistics_in_training_only(variant):
    model, _, ids, values = drawn(variant)
    model = built(variant, batch_norm=True, dropout=0.0)
    variables = model.init(jax.random.key(0), ids)
    assert variables["batch_stats"]
    _, same = model.apply(variables, ids, values, mutable=["batch_stats"])
    chex.assert_trees_all_equal(same["batch_stats"], variables["batch_stats"])
    _, moved = model.apply(variables, ids, values, train=True, mutable=["batch_stats"])
    for old, new in zip(*map(jax.tree.leaves, (same, moved)), strict=True):
        assert not np.array_equal(old, new)


@pytest.mark.parametrize("variant", ["lr", "fm"])
def test_the_order_of_fields_does_not_matter_to_symmetric_models(variant):
    model, params, ids, values = drawn(variant)
    order = [2, 0, 3, 1]
    offsets = np.cumsum([0, *DIMS])
    rows = np.concatenate([np.arange(offsets[f], offsets[f + 1]) for f in order])
    name, hyperparameters, _ = VARIANTS[variant]
    permuted = build_model(name, [DIMS[f] for f in order], hyperparameters)
    moved = {**params, "table": {key: array[rows] for key, array in params["table"].items()}}
    chex.assert_trees_all_close(
        permuted.apply({"params": moved}, ids[:, order], values[:, order]),
        model.apply({"params": params}, ids, values),
        atol=1e-5,
    )


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
        ("wide_deep", {"crosses": 1}, "model.crosses: wide_deep has no such hyperparameter"),
    ],
)
def test_a_misspelt_model_or_hyperparameter_is_named(name, hyperparameters, message):
    with pytest.raises(UserError, match=message):
        build_model(name, DIMS, hyperparameters)
