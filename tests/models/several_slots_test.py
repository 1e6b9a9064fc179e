"""Fields of several slots: every model sees the sum over a field's slots."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import DeepFM, Feature, UserError
from deepfm_jax.embedding import table_layout
from deepfm_jax.features import as_features, by_slot, total_rows
from deepfm_jax.models import build_model
from tests import references
from tests.model_variants import VARIANTS, fields_and_rest

# As many fields as the variants are made for. The last two are crosses to one of them.
DIMS = (4, Feature(6, 3), 5, 3)
SHARED = (Feature(6, 2, shared_with=1), Feature(6, 3), 5, 3)
BATCH = 5


def first_rows(dims):
    return table_layout(as_features(dims), 1, True).spaces[0].first_rows


def drawn(variant, dims, seed=0):
    """A model, its parameters, ids with empty slots, and values."""
    name, own, shared = VARIANTS[variant]
    model = build_model(name, *fields_and_rest(dims, {**own, **shared}))
    rng = np.random.default_rng(seed)
    rows = [dim.rows if isinstance(dim, Feature) else dim for dim in dims]
    tops, field = (
        by_slot(as_features(dims), np.array(rows)),
        by_slot(as_features(dims), np.arange(len(dims))),
    )
    ids = rng.integers(0, tops, (BATCH, len(tops))).astype(np.int32)
    values = rng.normal(1, 0.5, ids.shape).astype(np.float32)
    several = np.bincount(field)[field] > 1
    empty = several & (rng.random(ids.shape) < 0.4)
    empty[0] = several  # a row without any value of such fields
    ids[empty], values[empty] = -1, 0.0
    params = model.init(jax.random.key(seed), ids, values)["params"]
    leaves, tree = jax.tree.flatten(params)
    leaves = [leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32) for leaf in leaves]
    return model, jax.tree.unflatten(tree, leaves), ids, values


def reference(variant, params, dims, ids, values):
    """The model's reference over a table in which row b of each field is what batch row b sums."""
    name, _, shared = VARIANTS[variant]
    offsets, field = first_rows(dims), by_slot(as_features(dims), np.arange(len(dims)))
    summed = {}
    for array, table in params["table"].items():
        summed[array] = np.zeros((len(dims) * BATCH, *table.shape[1:]))
        for b in range(BATCH):
            for s in range(ids.shape[1]):
                row = offsets[field[s]] + ids[b, s]
                if ids[b, s] >= 0 and row < len(table):  # crosses have no vectors
                    weight = np.asarray(table[row], np.float64)
                    summed[array][field[s] * BATCH + b] += values[b, s] * weight
    own_ids = np.tile(np.arange(BATCH)[:, None], (1, len(dims)))
    return references.MODELS[name](
        {**params, "table": summed}, (BATCH,) * len(dims), own_ids, np.ones(own_ids.shape), **shared
    )


@pytest.mark.parametrize("dims", [DIMS, SHARED], ids=["own_rows", "shared_rows"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_reference_over_summed_slots(variant, dims):
    model, params, ids, values = drawn(variant, dims)
    logits = jax.jit(model.apply)({"params": params}, ids, values)
    chex.assert_trees_all_close(
        logits, reference(variant, params, dims, ids, values), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("variant", ["fm", "fnn", "wide_deep_crosses", "deepfm"])
def test_the_gradient_of_the_table_equals_finite_differences(variant):
    model, params, ids, values = drawn(variant, SHARED)
    gradient = jax.grad(lambda p: model.apply({"params": p}, ids, values).sum())(params)

    for name, table in params["table"].items():

        def logit_sum(changed, name=name):
            tables = {**params["table"], name: changed}
            return reference(variant, {**params, "table": tables}, SHARED, ids, values).sum()

        entries = np.random.default_rng(0).permutation(table.size)[:12]
        chex.assert_trees_all_close(
            np.ravel(gradient["table"][name])[entries],
            references.numeric_gradient(logit_sum, table, entries=entries),
            rtol=1e-4,
            atol=2e-6,
        )


def test_an_empty_slot_reads_nothing_and_moves_nothing():
    model, params, ids, values = drawn("deepfm", DIMS)
    gradient = jax.grad(lambda p: model.apply({"params": p}, ids[:1], values[:1]).sum())(params)
    chex.assert_tree_all_finite(gradient)
    # Row 0 of the batch has no value of field 1, whose rows are 4 to 9.
    assert not gradient["table"]["first_order"][4:10].any()
    assert not gradient["table"]["embedding"][4:10].any()
    by_value = jax.grad(lambda v: model.apply({"params": params}, ids, v).sum())(values)
    chex.assert_tree_all_finite(by_value)


def test_the_order_of_the_slots_of_a_field_does_not_matter():
    model, params, ids, values = drawn("deepfm", DIMS)
    order = np.array([0, 3, 1, 2, 4, 5])
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        model.apply({"params": params}, ids[:, order], values[:, order]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_shared_rows_are_one_parameter():
    _, params, *_ = drawn("deepfm", SHARED)
    assert params["table"]["first_order"].shape == (total_rows(as_features(SHARED)),) == (14,)


def test_values_tell_which_slots_are_empty():
    model, params, ids, _ = drawn("deepfm", DIMS)
    with pytest.raises(UserError, match="a field has several slots: pass values"):
        model.apply({"params": params}, ids)


@pytest.mark.parametrize(("slot", "value"), [(0, -1), (2, 6), (2, -2), (5, 3)])
def test_an_id_out_of_range_is_named_by_its_field(slot, value):
    model, params, ids, values = drawn("fm", DIMS)
    ids[1, slot] = value
    field = (0, 1, 1, 1, 2, 3)[slot]
    with pytest.raises(
        UserError, match=rf"ids\[1, {slot}\] = {value} is out of range: field {field}"
    ):
        model.apply({"params": params}, ids, values)


def test_an_id_out_of_range_under_jit_is_nan():
    model, params, ids, values = drawn("fm", DIMS)
    ids[1, 2], values[1, 2] = 6, 1.0
    logits = jax.jit(model.apply)({"params": params}, ids, values)
    chex.assert_trees_all_equal(np.isnan(logits), np.array([False, True, False, False, False]))


def test_a_list_of_plain_numbers_still_makes_a_model():
    model = DeepFM(field_dims=[3, 4], embed_dim=2, mlp_dims=(3,))
    chex.assert_shape(model.init_with_output(jax.random.key(0), jnp.zeros((2, 2), int))[0], (2,))
