"""From rows and numbers to the vectors of fields, against loops in float64."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import DeepFM, Feature, UserError
from deepfm_jax.embedding import EmbeddingTable, Rows, table_layout
from deepfm_jax.features import as_features
from deepfm_jax.inputs import ENCODERS, InputEncoder, Inputs

DIM = 4
PLAIN = (3, 5, 2)
POOLINGS = tuple(ENCODERS)
MANY = (
    3,
    Feature(6, slots=3, pooling="mean"),
    Feature(size=2),
    Feature(6, slots=2, pooling="sqrtn", shared_with=1),
    Feature(4, dim=2),
    Feature(4, slots=2, dim=3),
    Feature(size=1, dim=2),
    Feature(9, dim=0),
)


def drawn(dims, batch=5, seed=0, first_order=True):
    """A layout, parameters, ids with empty slots, values and dense numbers."""
    rng = np.random.default_rng(seed)
    layout = table_layout(as_features(dims), DIM, first_order)
    columns, values = [], []
    for feature in layout.features:
        ids = rng.integers(0, feature.rows, (batch, feature.slots)) if feature.slots else None
        if ids is None:
            continue
        x = rng.normal(1, 0.5, ids.shape)
        empty = (rng.random(ids.shape) < 0.4) & (feature.slots > 1)
        columns.append(np.where(empty, -1, ids))
        values.append(np.where(empty, 0.0, x))
    ids = np.concatenate(columns, axis=1).astype(np.int32)
    values = np.concatenate(values, axis=1).astype(np.float32)
    numbers = sum(feature.size for feature in layout.features)
    dense = rng.normal(size=(batch, numbers)).astype(np.float32)
    module = Network(layout)
    params = module.init(jax.random.key(seed), ids, values, dense)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    return module, params, ids, values, dense


class Network(nn.Module):
    layout: object

    def setup(self):
        self.table = EmbeddingTable(self.layout)
        self.inputs = Inputs(self.layout)

    def __call__(self, ids, values=None, dense=None):
        return self.inputs(self.table(ids), values, dense)


def reference(layout, params, ids, values, dense):
    """First-order terms and vectors by loops over examples, fields and slots."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    table, inputs = params["table"], params.get("inputs", {})
    linear, vectors = [], []
    for b in range(len(ids)):
        slot, number = 0, 0
        of_linear, of_vectors = [], []
        for f, feature in enumerate(layout.features):
            length = DIM if feature.dim is None else feature.dim
            w, e = 0.0, np.zeros(length)
            if feature.size:
                for n in range(feature.size):
                    x = float(dense[b, number + n])
                    w += x * inputs[f"dense_{f}_first_order"][n]
                    e += x * inputs[f"dense_{f}_kernel"][n]
                number += feature.size
            else:
                xs = [float(values[b, slot + k]) for k in range(feature.slots)]
                scale = 1.0
                if feature.slots > 1 and feature.pooling == "mean":
                    scale = sum(xs) or 1.0
                if feature.slots > 1 and feature.pooling == "sqrtn":
                    scale = np.sqrt(sum(x * x for x in xs)) or 1.0
                for k, x in enumerate(xs):
                    if x == 0:
                        continue
                    row = ids[b, slot + k]
                    main = layout.space_of("first_order").first_row(f)
                    w += x / scale * table["first_order"][main + row]
                    array = layout.vectors_of(f)
                    if array is not None:
                        first = layout.space_of(array).first_row(f)
                        e += x / scale * table[array][first + row]
                slot += feature.slots
            of_linear.append(w)
            if length:
                if length != DIM:
                    e = e @ inputs[f"projection_{f}"]["kernel"]
                of_vectors.append(e)
        linear.append(of_linear)
        vectors.append(of_vectors)
    return np.array(linear), np.array(vectors)


@pytest.mark.parametrize("dims", [PLAIN, MANY], ids=["plain", "many"])
def test_fields_equal_the_reference(dims):
    module, params, ids, values, dense = drawn(dims)
    fields = jax.jit(module.apply)({"params": params}, ids, values, dense)
    linear, vectors = reference(module.layout, params, ids, values, dense)
    chex.assert_shape(fields.embeddings, vectors.shape)
    # Sums of a few products of standard normals in float32.
    chex.assert_trees_all_close(np.asarray(fields.first_order, np.float64), linear, atol=1e-5)
    chex.assert_trees_all_close(np.asarray(fields.embeddings, np.float64), vectors, atol=1e-5)


def test_gradients_equal_finite_differences():
    module, params, ids, values, dense = drawn(MANY)
    weights = [np.random.default_rng(1).normal(size=shape) for shape in ((5, 8), (5, 7, DIM))]

    def total(fields):
        return sum((w * x).sum() for w, x in zip(weights, fields, strict=True))

    gradient = jax.grad(lambda p: total(module.apply({"params": p}, ids, values, dense)))(params)
    chex.assert_tree_all_finite(gradient)
    direction = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape), params
    )

    def moved(step):
        there = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return total(reference(module.layout, there, ids, values, dense))

    slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
    along = jax.tree.map(lambda g, d: np.sum(np.asarray(g, np.float64) * d), gradient, direction)
    # Float32 sums of some hundred products.
    chex.assert_trees_all_close(sum(jax.tree.leaves(along)), slope, rtol=1e-5, atol=0)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.floats(0.125, 4.0, width=32), min_size=0, max_size=4),
    pooling=st.sampled_from(POOLINGS),
)
def test_padding_changes_no_pooling(values, pooling):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1, 1, len(values) + 2, DIM)).astype(np.float32)
    vectors[:, :, len(values) :] = 0.0
    x = np.array([[[*values, 0.0, 0.0]]], np.float32)
    encoder = ENCODERS[pooling]()
    padded = encoder.apply({}, vectors, x)
    chex.assert_tree_all_finite(padded)
    if values:
        alone = encoder.apply({}, vectors[:, :, : len(values)], x[:, :, : len(values)])
        chex.assert_trees_all_close(padded, alone, rtol=1e-6)
    else:
        assert not np.asarray(padded).any()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_example_without_values_has_a_finite_gradient(pooling):
    encoder = ENCODERS[pooling]()
    vectors, values = jnp.ones((1, 1, 3, 2)), jnp.zeros((1, 1, 3))
    gradient = jax.grad(lambda x: encoder.apply({}, vectors, x).sum())(values)
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("weight", [1e30, 1.0, 1e-30])
@pytest.mark.parametrize(("pooling", "expected"), [("mean", 0.5), ("sqrtn", 0.5**0.5)])
def test_weights_of_any_size_stay_finite(pooling, expected, weight):
    values = np.full((1, 1, 2), weight, np.float32)
    found = ENCODERS[pooling]().apply({}, values, method="weights")
    chex.assert_trees_all_close(found, np.full((1, 1, 2), expected), rtol=1e-6, atol=0)


def test_a_mean_is_the_mean_of_the_vectors():
    vectors = jnp.asarray([[[[2.0, 0.0], [4.0, 6.0], [0.0, 0.0]]]])
    values = jnp.asarray([[[1.0, 1.0, 0.0]]])
    chex.assert_trees_all_close(
        ENCODERS["mean"]().apply({}, vectors, values), jnp.asarray([[[3.0, 3.0]]])
    )
    chex.assert_trees_all_close(
        ENCODERS["sqrtn"]().apply({}, vectors, values), jnp.asarray([[[6.0, 6.0]]]) / np.sqrt(2)
    )


@pytest.mark.parametrize("shape", [(5, 1), (1, 3), (5, 4), (5,), (5, 3, 1)])
def test_values_of_another_shape_are_refused(unchecked_types, shape):
    module, params, ids, *_ = drawn(PLAIN)
    with pytest.raises(UserError, match=r"values have shape .*, but ids have shape \(5, 3\)"):
        module.apply({"params": params}, ids, np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [None, (5, 2), (1, 3), (3,)])
def test_dense_numbers_of_another_shape_are_refused(unchecked_types, shape):
    module, params, ids, values, _ = drawn(MANY)
    dense = None if shape is None else np.ones(shape, np.float32)
    with pytest.raises(UserError, match=r"dense numbers have shape .*\[batch, 3\]"):
        module.apply({"params": params}, ids, values, dense)


def test_dense_numbers_that_no_field_reads_are_refused():
    module, params, ids, values, _ = drawn(PLAIN)
    with pytest.raises(UserError, match="dense numbers have shape"):
        module.apply({"params": params}, ids, values, np.ones((5, 1), np.float32))


def test_an_unknown_pooling_is_named():
    layout = table_layout(as_features((Feature(3, slots=2, pooling="max"),)), DIM, False)
    with pytest.raises(UserError, match="pooling='max' is unknown; use one of"):
        Network(layout).init(jax.random.key(0), jnp.zeros((1, 2), int), jnp.ones((1, 2)))


def test_a_new_encoder_is_a_class_and_an_entry(monkeypatch):
    class MaxPooling(InputEncoder):
        def weights(self, values):
            return values

        def __call__(self, vectors, values):
            present = (values != 0)[..., None]
            return jnp.max(jnp.where(present, vectors, -jnp.inf), axis=2)

    monkeypatch.setitem(ENCODERS, "max", MaxPooling)
    model = DeepFM([4, Feature(6, slots=3, pooling="max")], embed_dim=2, mlp_dims=(3,))
    ids, values = np.array([[1, 0, 5, -1]], np.int32), np.array([[1, 1, 1, 0]], np.float32)
    variables = model.init(jax.random.key(0), ids, values)
    fields = model.apply(variables, ids, values, method=lambda m, i, v: m.inputs(m.table(i), v))
    vectors = variables["params"]["table"]["embedding"]
    chex.assert_trees_all_equal(fields.embeddings[0, 1], np.asarray(vectors)[[4, 9]].max(axis=0))


def test_a_model_of_dense_fields_alone_has_no_table():
    layout = table_layout(as_features((Feature(size=3),)), DIM, True)
    numbers = np.ones((2, 3), np.float32)
    fields, variables = Inputs(layout).init_with_output(jax.random.key(0), Rows({}), None, numbers)
    assert layout.spaces == ()
    chex.assert_shape(fields.embeddings, (2, 1, DIM))
    chex.assert_trees_all_close(
        fields.embeddings[:, 0], numbers @ variables["params"]["dense_0_kernel"], rtol=1e-6, atol=0
    )
