"""Models that turn into one another, and what sets each apart."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from deepfm_jax import build_model
from tests.model_variants import DIMS, TOWER, built, drawn


def applied(name, params, ids, values, **hyperparameters):
    model = build_model(name, DIMS, {**TOWER, **hyperparameters})
    return model.apply({"params": params}, ids, values)


def test_deepfm_with_a_zeroed_tower_is_fm():
    model, params, ids, values = drawn("deepfm")
    params["tower"] = jax.tree.map(jnp.zeros_like, params["tower"])
    fm = build_model("fm", DIMS, {"embed_dim": 3})
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


def first_order_plus_deep(params, ids, values):
    lr = build_model("lr", DIMS, {})
    table = params["table"]
    first_order = {"table": {"first_order": table["first_order"]}, "bias": params["bias"]}
    deep = {"table": {"embedding": table["embedding"]}, "tower": params["tower"]}
    return lr.apply({"params": first_order}, ids, values) + applied("dnn", deep, ids, values)


def test_wide_and_deep_without_crosses_is_lr_plus_deep():
    model, params, ids, values = drawn("wide_deep")
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        first_order_plus_deep(params, ids, values),
        atol=1e-5,
    )


def test_xdeepfm_without_cin_is_first_order_plus_deep():
    model, params, ids, values = drawn("xdeepfm", cin_dims=())
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        first_order_plus_deep(params, ids, values),
        atol=1e-5,
    )


def test_unshared_deepfm_with_equal_halves_is_deepfm():
    model, params, ids, values = drawn("deepfm")
    vectors = jnp.concatenate([params["table"]["embedding"]] * 2, axis=1)
    unshared = {**params, "table": {**params["table"], "embedding": vectors}}
    chex.assert_trees_all_close(
        applied("deepfm", unshared, ids, values, shared=False),
        model.apply({"params": params}, ids, values),
        atol=1e-6,
    )


def test_fnn_whose_first_order_weights_are_zero_is_deep_only():
    model, params, ids, values = drawn("fnn_relu")
    params["bias"] *= 0
    params["table"]["first_order"] *= 0
    kernel = params["tower"]["dense_0"]["kernel"]
    of_vectors = [row for row in range(len(kernel)) if row and (row - 1) % 4]
    dense = {**params["tower"]["dense_0"], "kernel": kernel[np.array(of_vectors)]}
    deep = {
        "table": {"embedding": params["table"]["embedding"]},
        "tower": {**params["tower"], "dense_0": dense},
    }
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        applied("dnn", deep, ids, values),
        atol=1e-6,
    )


def test_pnn_that_gives_products_no_weight_is_deep_only():
    model, params, ids, values = drawn("pnn_star")
    width = len(DIMS) * 3
    kernel = params["tower"]["dense_0"]["kernel"]
    dense = params["tower"]["dense_0"]
    params["tower"]["dense_0"] = {**dense, "kernel": kernel.at[width:].set(0)}
    deep = {**params, "tower": {**params["tower"]}}
    deep["tower"]["dense_0"] = {**dense, "kernel": kernel[:width]}
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        applied("dnn", deep, ids, values),
        atol=1e-6,
    )


def test_an_open_gate_changes_nothing():
    model, params, ids, values = drawn("final_mlp")
    for gate in ("gates_0", "gates_1"):  # 2 sigmoid(0) = 1
        params[gate]["gate"]["out"] = jax.tree.map(jnp.zeros_like, params[gate]["gate"]["out"])
    ungated = built("final_mlp", gated=False)
    without = {key: value for key, value in params.items() if not key.startswith("gates")}
    chex.assert_trees_all_close(
        model.apply({"params": params}, ids, values),
        ungated.apply({"params": without}, ids, values),
        atol=1e-6,
    )


def test_crosses_have_weights_and_no_vectors():
    model, params, ids, values = drawn("wide_deep_crosses")
    assert params["table"]["first_order"].shape == (15,)
    assert params["table"]["embedding"].shape == (7, 3)
    moved = ids.copy()
    moved[:, 3] = (moved[:, 3] + 1) % DIMS[3]
    weights = params["table"]["first_order"]
    expected = values[:, 3] * (weights[13 + moved[:, 3]] - weights[13 + ids[:, 3]])
    before, after = (model.apply({"params": params}, i, values) for i in (ids, moved))
    chex.assert_trees_all_close(after - before, expected, rtol=1e-7, atol=1e-5)


def test_attention_can_be_read():
    model, params, ids, values = drawn("autoint_plus")
    _, found = model.apply({"params": params}, ids, values, mutable=["intermediates"])
    (attention,) = found["intermediates"]["interacting_1"]["attention"]
    chex.assert_shape(attention, (6, 2, 4, 4))
    chex.assert_trees_all_close(attention.sum(axis=-1), 1.0, rtol=1e-5, atol=0)


def test_both_halves_of_deepfm_move_one_embedding():
    model, params, ids, _ = drawn("deepfm")
    tables = [path for path, _ in jax.tree.leaves_with_path(params) if "table" in str(path)]
    assert len(tables) == 2  # first_order and embedding, shared by the FM and the tower

    def gradient(p):
        return jax.grad(lambda q: model.apply({"params": q}, ids).sum())(p)["table"]["embedding"]

    no_tower = {**params, "tower": jax.tree.map(jnp.zeros_like, params["tower"])}
    assert float(jnp.abs(gradient(params) - gradient(no_tower)).max()) > 1e-3
