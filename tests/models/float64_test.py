"""Every model in float64 from end to end, in 64-bit mode."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import DeepFM, UserError
from deepfm_jax.layers import MLP
from tests.model_variants import drawn, reference
from tests.plain_models import (
    FIELDS,
    ONE_SLOT,
    case,
    close,
    every_model,
    every_variant,
    expected,
    loss_of,
)
from tests.small_models import small_model


@every_variant
def test_float64_equals_the_reference(variant):
    with jax.enable_x64(True):
        model, params, ids, values = drawn(variant, table_dtype="float64")
        values = values + np.random.default_rng(1).normal(0, 1e-9, values.shape)
        chex.assert_tree_all_finite(params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float64"}
        logits = jax.jit(model.apply)({"params": params}, ids, values)
        chex.assert_trees_all_close(
            np.asarray(logits), reference(variant, params, ids, values), rtol=1e-12, atol=1e-12
        )


@every_model
def test_float64_reaches_every_kind_of_field(name):
    with jax.enable_x64(True):
        model, inputs, variables = in_float64(name)
        apply = jax.jit(model.apply)
        logits = apply(variables, *inputs)
        found = jax.tree.leaves((variables, logits))
        assert {leaf.dtype.name for leaf in found} == {"float64"}
        # What float32 would round off moves the logits.
        ids, *numbers = inputs
        moved = apply(variables, ids, *(x * (1 + 1e-10) for x in numbers))
        assert 0 < np.abs(moved - logits).max() < 1e-6


def in_float64(name):
    model = small_model(name, FIELDS, table_dtype="float64")
    _, _, (ids, *numbers) = case(name)
    inputs = (ids, *(x.astype(np.float64) for x in numbers))
    variables = jax.jit(model.init)(jax.random.key(0), *inputs)
    return model, inputs, jax.tree.map(lambda leaf: leaf + 0.1, variables)


def test_a_float64_gradient_equals_differences_too_fine_for_float32():
    with jax.enable_x64(True):
        model, inputs, variables = in_float64("deepfm")
        step = jax.jit(loss_of(model))
        _, gradient = step(variables, *inputs)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {"float64"}
        # Along the gradient itself the loss rises by its square.
        sides = [
            step(jax.tree.map(lambda x, g, by=by: x + by * g, variables, gradient), *inputs)[0][0]
            for by in (1e-6, -1e-6)
        ]
        square = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))
        chex.assert_trees_all_close((sides[0] - sides[1]) / 2e-6, square, rtol=1e-7)


def test_statistics_of_batches_stay_in_float64():
    with jax.enable_x64(True):
        model = small_model("deepfm", ONE_SLOT, table_dtype="float64", batch_norm=True)
        _, _, (ids,) = case("deepfm", several=False)
        variables = model.init(jax.random.key(0), ids)
        _, moved = model.apply(variables, ids, train=True, mutable=["batch_stats"])
        chex.assert_trees_all_equal_shapes_and_dtypes(
            moved["batch_stats"], variables["batch_stats"]
        )
        assert moved["batch_stats"]["tower"]["batch_norm_0"]["mean"].dtype == np.float64


@every_model
def test_a_float32_model_stays_one_in_64_bit_mode(name):
    model, variables, (ids, values, dense) = case(name)
    with jax.enable_x64(True):
        inputs = (ids.astype(np.int64), values.astype(np.float64), dense.astype(np.float64))
        first = jax.eval_shape(model.init, jax.random.key(0), *inputs)
        logits = jax.jit(model.apply)(variables, *inputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, jax.eval_shape(lambda: variables))
    assert logits.dtype == np.float32
    close(logits, expected(name)[0])


def test_float64_is_refused_without_64_bit_mode():
    model = DeepFM([3, 4], table_dtype="float64")
    with pytest.raises(UserError, match="table_dtype='float64' needs JAX's 64-bit mode: set JAX"):
        model.init(jax.random.key(0), np.zeros((1, 2), np.int32))


def test_products_in_bfloat16_of_float64_are_refused():
    with jax.enable_x64(True):
        model = DeepFM([3, 4], table_dtype="float64", compute_dtype="bfloat16")
        with pytest.raises(UserError, match="compute_dtype='bfloat16' would round float64 inputs"):
            model.init(jax.random.key(0), np.zeros((1, 2), np.int32))
        chosen = DeepFM([3, 4], table_dtype="float64", compute_dtype="auto")
        assert chosen.init_with_output(jax.random.key(0), np.zeros((1, 2), int))[0].dtype == float


def test_a_layer_alone_follows_its_inputs():
    inputs = np.random.default_rng(0).normal(size=(3, 4))
    for is_64_bit, name in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(is_64_bit):
            out, variables = MLP((5,)).init_with_output(jax.random.key(0), inputs)
            assert {leaf.dtype.name for leaf in jax.tree.leaves((out, variables))} == {name}
