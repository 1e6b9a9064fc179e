import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError
from deepfm_jax.embedding import EmbeddingTable, table_layout
from deepfm_jax.embedding.table import check_ids
from deepfm_jax.features import Feature, as_features
from tests import references

DIMS = (3, 5, 2)


def layout_of(dims, dim=4, first_order=True):
    return table_layout(as_features(dims), dim, first_order)


@pytest.fixture
def table():
    return EmbeddingTable(layout_of(DIMS), init_std=1.0)


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
        np.asarray(rows.arrays["embedding"], np.float64),
        references.look_up(params["embedding"], DIMS, IDS),
        atol=0,
    )
    chex.assert_trees_all_close(
        np.asarray(rows.arrays["first_order"], np.float64),
        references.look_up(params["first_order"], DIMS, IDS),
        atol=0,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_offsets_are_exclusive_cumulative_sums(dims):
    (space,) = layout_of(dims).spaces
    assert list(space.first_rows) == [sum(dims[:f]) for f in range(len(dims))]


@pytest.mark.parametrize("dims", [(), (3, 0), (2**31 - 1, 1)])
def test_impossible_dims_are_refused(dims):
    with pytest.raises(UserError, match="field_dims"):
        layout_of(dims)


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
    assert np.isnan(rows.arrays["embedding"][1, 1]).all()
    assert np.isnan(rows.arrays["first_order"][1, 1])
    assert int(np.isnan(rows.arrays["first_order"]).sum()) == 1


def test_float_ids_are_refused():
    with pytest.raises(UserError, match="dtype float32; pass int32"):
        check_ids(IDS.astype(np.float32), as_features(DIMS))


def test_another_number_of_fields_is_refused(table, variables):
    with pytest.raises(UserError, match=r"\[batch, 3\]"):
        table.apply(variables, IDS[:, :2])


def test_an_id_above_two_to_the_24_survives():
    size = 2**24 + 4
    table = EmbeddingTable(layout_of((size,), dim=0))
    weights = jnp.zeros(size).at[2**24 + 1].set(7.0)
    ids = np.array([[2**24], [2**24 + 1], [2**24 + 2]], np.int32)
    rows = table.apply({"params": {"first_order": weights}}, ids)
    chex.assert_trees_all_equal(rows.arrays["first_order"], jnp.array([[0.0], [7.0], [0.0]]))


def test_gradient_reaches_the_rows_read_and_no_other(table, variables):
    gradient = jax.grad(lambda v: table.apply(v, IDS).arrays["embedding"].sum())(variables)
    touched = np.zeros(10)
    for row in IDS:
        for field, i in enumerate(row):
            touched[sum(DIMS[:field]) + i] += 1
    expected = np.repeat(touched[:, None], 4, axis=1)
    chex.assert_trees_all_close(gradient["params"]["embedding"], expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("by", [lambda f: f, jax.jit])
def test_a_batch_without_rows_is_refused(table, variables, by):
    with pytest.raises(UserError, match="ids have no row"):
        by(table.apply)(variables, IDS[:0])


MIXED = (Feature(3, dim=2), 5, Feature(4, dim=0), Feature(2, slots=2, dim=2), 3)


def test_vectors_of_another_length_have_an_array_of_their_own():
    layout = layout_of(MIXED)
    table = EmbeddingTable(layout, init_std=1.0)
    ids = np.array([[2, 4, 3, 1, -1, 2]], np.int32)
    variables = table.init(jax.random.key(0), ids)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes == {"first_order": (17,), "embedding": (8, 4), "embedding_2": (5, 2)}
    params = {**variables["params"], "first_order": jnp.arange(17.0)}
    arrays = table.apply({"params": params}, ids).arrays
    # Fields with vectors of the common length come first: rows 0 to 7 are those of fields 1 and 4.
    chex.assert_trees_all_equal(arrays["first_order"][0], np.array([10, 4, 14, 16, np.nan, 7]))
    chex.assert_trees_all_equal(
        arrays["embedding"][0, [1, 5]], np.asarray(params["embedding"])[[4, 7]]
    )
    chex.assert_trees_all_equal(
        arrays["embedding_2"][0, :2], np.asarray(params["embedding_2"])[[2, 4]]
    )
    assert [layout.vectors_of(field) for field in range(5)] == [
        *("embedding_2", "embedding", None, "embedding_2", "embedding"),
    ]


def test_without_first_order_each_space_has_its_own_fields():
    layout = layout_of(MIXED, first_order=False)
    assert [space.fields for space in layout.spaces] == [(1, 4), (0, 3)]
    with pytest.raises(UserError, match="needs first-order weights or embed_dim"):
        layout_of(DIMS, dim=0, first_order=False)
