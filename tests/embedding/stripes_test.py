import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError
from deepfm_jax.distributed.partitioning import TABLE_SPEC, create_mesh
from deepfm_jax.embedding import restripe, striped_rows
from deepfm_jax.embedding.stripes import rows_of_positions, stripes_of


def striped(rows, stripes):
    """Row r on shard r mod n, one after another, 0 where a shard is not full."""
    shards = [list(rows[shard::stripes]) for shard in range(stripes)]
    longest = max(map(len, shards))
    filler = [np.zeros_like(rows[0])]
    return np.concatenate([shard + filler * (longest - len(shard)) for shard in shards])


def numbered(rows, dim):
    return np.arange(1, 1 + rows * dim, dtype=np.float32).reshape(rows, 1, dim)


sizes = st.integers(1, 40)
counts = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(rows=sizes, old=counts, new=counts, dim=st.integers(1, 3))
def test_rows_are_laid_out_anew_for_any_number_of_shards(rows, old, new, dim):
    table = numbered(rows, dim)
    found = restripe(jnp.asarray(striped(table, old)), old, new, striped_rows(rows, new))
    chex.assert_trees_all_equal(found, striped(table, new))


@settings(max_examples=30, deadline=None)
@given(rows=sizes, stripes=counts)
def test_each_position_knows_its_row(rows, stripes):
    positions = jnp.arange(striped_rows(rows, stripes), dtype=jnp.uint32)
    found = np.asarray(rows_of_positions(positions, rows, stripes))
    expected = striped(np.arange(1, rows + 1)[:, None, None], stripes).ravel()
    chex.assert_trees_all_equal(np.where(found < rows, found + 1, 0), expected)


def test_stripes_are_the_parts_that_an_array_is_split_into():
    mesh = create_mesh(jax.devices()[:6], replicas=2)
    array = jax.device_put(np.zeros((12, 2)), jax.sharding.NamedSharding(mesh, TABLE_SPEC))
    assert stripes_of(array) == 3


def test_a_table_that_int32_cannot_reach_when_filled_up_is_refused():
    assert striped_rows(2**31 - 8, 4) == 2**31 - 8
    with pytest.raises(UserError, match=r"2147483645 rows on 256 shards takes 2147483648 rows"):
        striped_rows(2**31 - 3, 256)
