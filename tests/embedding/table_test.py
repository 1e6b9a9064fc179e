import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError
from deepfm_jax.embedding import EmbeddingTable
from deepfm_jax.embedding.table import check_ids
from deepfm_jax.features import field_offsets
from tests import references

DIMS = (3, 5, 2)


@pytest.fixture
def table():
    return EmbeddingTable(DIMS, embed_dim=4, init_std=1.0)


@pytest.fixture
def variables(table):
    params = table.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]
    assert not params["first_order"].any()  # as documented; other weights tell rows apart
    return {"params": {**params, "first_order": jnp.arange(10.0)}}


IDS = np.array([[0, 0, 0], [2, 4, 1], [1, 3, 0]], np.int32)


def test_each_field_reads_its_own_rows(table, variables):
    rows = table.apply(variables, IDS)
    params = variables["params"]
    chex.assert_shape(params["embedding"], (10, 4))
    chex.assert_trees_all_close(
        np.asarray(rows.embedding, np.float64),
        references.look_up(params["embedding"], DIMS, IDS),
        atol=0,
    )
    chex.assert_trees_all_close(
        np.asarray(rows.first_order, np.float64),
        references.look_up(params["first_order"], DIMS, IDS),
        atol=0,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_offsets_are_exclusive_cumulative_sums(dims):
    offsets = field_offsets(dims)
    assert offsets.dtype == np.int32
    assert offsets.tolist() == [sum(dims[:f]) for f in range(len(dims))]


@pytest.mark.parametrize("dims", [(), (3, 0), (2**31 - 1, 1)])
def test_impossible_dims_are_refused(dims):
    with pytest.raises(UserError, match="field_dims"):
        field_offsets(dims)


@pytest.mark.parametrize(("row", "field", "value"), [(1, 1, 5), (2, 2, 2), (0, 0, -1)])
def test_an_id_out_of_range_is_named(table, variables, row, field, value):
    ids = IDS.copy()
    ids[row, field] = value
    with pytest.raises(UserError, match=rf"ids\[{row}, {field}\] = {value} is out of range"):
        table.apply(variables, ids)


@pytest.mark.parametrize("value", [5, -1, 10**6])
def test_an_id_out_of_range_under_jit_is_nan_and_never_a_neighbour(table, variables, value):
    ids = IDS.copy()
    ids[1, 1] = value
    rows = jax.jit(table.apply)(variables, ids)
    assert np.isnan(rows.embedding[1, 1]).all()
    assert np.isnan(rows.first_order[1, 1])
    assert int(np.isnan(rows.first_order).sum()) == 1


def test_float_ids_are_refused():
    with pytest.raises(UserError, match="dtype float32; pass int32"):
        check_ids(IDS.astype(np.float32), DIMS)


def test_another_number_of_fields_is_refused(table, variables):
    with pytest.raises(UserError, match=r"\[batch, 3\]"):
        table.apply(variables, IDS[:, :2])


def test_an_id_above_two_to_the_24_survives():
    size = 2**24 + 4
    table = EmbeddingTable((size,), embed_dim=0)
    weights = jnp.zeros(size).at[2**24 + 1].set(7.0)
    ids = np.array([[2**24], [2**24 + 1], [2**24 + 2]], np.int32)
    rows = table.apply({"params": {"first_order": weights}}, ids)
    chex.assert_trees_all_equal(rows.first_order, jnp.array([[0.0], [7.0], [0.0]]))


def test_gradient_reaches_the_rows_read_and_no_other(table, variables):
    gradient = jax.grad(lambda v: table.apply(v, IDS).embedding.sum())(variables)
    touched = np.zeros(10)
    for row in IDS:
        for field, i in enumerate(row):
            touched[sum(DIMS[:field]) + i] += 1
    expected = np.repeat(touched[:, None], 4, axis=1)
    np.testing.assert_allclose(gradient["params"]["embedding"], expected)


def test_values_scale_weights_and_vectors(table, variables):
    rows = table.apply(variables, IDS)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    first_order, e = rows.first_order_terms(values), rows.embeddings(values)
    for b in range(3):
        for s in range(3):
            np.testing.assert_allclose(e[b, s], values[b, s] * rows.embedding[b, s])
            np.testing.assert_allclose(first_order[b, s], values[b, s] * rows.first_order[b, s])


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (3, 4), (3,), (3, 3, 1)])
@pytest.mark.parametrize("read", ["first_order_terms", "embeddings"])
def test_values_of_another_shape_are_refused(unchecked_types, table, variables, shape, read):
    rows = table.apply(variables, IDS)
    with pytest.raises(UserError, match=r"values have shape .*, and the ids \(3, 3\)"):
        getattr(rows, read)(np.ones(shape, np.float32))


def test_values_of_the_first_fields_are_cut_from_those_of_all(table, variables):
    rows, values = table.apply(variables, IDS), np.ones((3, 3), np.float32)
    chex.assert_trees_all_equal(rows.embeddings(values, 2), rows.embedding[:, :2])
    with pytest.raises(UserError, match=r"values have shape \(3, 2\)"):
        rows.embeddings(values[:, :2], 2)


@pytest.mark.parametrize("by", [lambda f: f, jax.jit])
def test_a_batch_without_rows_is_refused(table, variables, by):
    with pytest.raises(UserError, match="ids have no row"):
        by(table.apply)(variables, IDS[:0])
