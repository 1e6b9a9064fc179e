"""No NaN is made of valid inputs; an id out of range still gives one."""

import chex
import jax
import numpy as np
import pytest

from tests.plain_models import BATCH, case, close, every_model, expected, loss_of


@every_model
def test_no_nan_is_made_of_valid_inputs(name):
    model, variables, inputs = case(name)
    assert (inputs[0] == -1).any()
    with jax.debug_nans(True):
        logits = model.apply(variables, *inputs)
    close(logits, expected(name)[0])


def test_nor_of_their_gradient_compiled_or_not():
    model, variables, inputs = case("fm")
    with jax.debug_nans(True):
        _, gradient = loss_of(model)(variables, *inputs)
        _, compiled = jax.jit(loss_of(model))(variables, *inputs)
    close(gradient, expected("fm")[1])
    close(compiled, expected("fm")[1])


@pytest.mark.parametrize(("slot", "wrong"), [(0, -1), (0, 8), (1, 16), (5, 8), (6, 16)])
def test_an_id_out_of_range_is_still_nan(slot, wrong):
    model, variables, (ids, values, dense) = case("deepfm")
    ids, values = ids.copy(), values.copy()
    ids[3, slot], values[3, slot] = wrong, 1.0
    logits = jax.jit(model.apply)(variables, ids, values, dense)
    chex.assert_trees_all_equal(np.isnan(logits), np.arange(BATCH) == 3)


def test_padding_with_a_value_is_still_nan():
    model, variables, (ids, values, dense) = case("deepfm")
    values = np.where(ids == -1, np.float32(1.0), values)
    logits = jax.jit(model.apply)(variables, ids, values, dense)
    chex.assert_trees_all_equal(np.isnan(logits), (ids == -1).any(axis=1))
