"""How one device writes the rows of a step, as it is described to compilers."""

import re

import jax
import jax.numpy as jnp
import pytest

from deepfm_jax.embedding.local import RowUpdate
from deepfm_jax.embedding.row_gradients import sum_sorted
from deepfm_jax.embedding.row_optimizers import sgd

ROWS, DIM = 12, 3


def lowered_writes(frozen):
    """For each array of a table, by its rank, whether its write declares that ids ascend."""
    table = {"embedding": jnp.ones((ROWS, DIM)), "first_order": jnp.ones(ROWS)}
    grads = {name: jnp.ones((5, *array.shape[1:])) for name, array in table.items()}

    def step(table, row_ids, grads, frozen):
        touched = sum_sorted(row_ids, grads, ROWS)
        update = RowUpdate(
            step=jnp.zeros((), jnp.int32),
            scale=jnp.ones(()),
            key=jax.random.key(0),
            optimizers=dict.fromkeys(table, sgd(0.1)),
            decay=lambda weights, grads: grads,
            frozen=frozen,
        )
        moved, _ = update.moved(table, dict.fromkeys(table, ()), touched, touched.grads)
        return moved

    row_ids = jnp.asarray([3, 1, 3, 0, 11], jnp.int32)
    text = jax.jit(step).lower(table, row_ids, grads, frozen).as_text()
    shapes = {f"tensor<{ROWS}x{DIM}xf32>": "embedding", f"tensor<{ROWS}xf32>": "first_order"}
    found = {}
    for scatter in re.findall(r'"stablehlo\.scatter".*?\) -> tensor<\w+>', text, re.DOTALL):
        shape = scatter.rsplit(" -> ", 1)[1]
        if shape in shapes:
            found[shapes[shape]] = "indices_are_sorted = true" in scatter
    return found


@pytest.mark.parametrize("names", [(), ("embedding",)])
def test_ids_are_written_ascending_but_where_frozen_ones_are_left_out(names):
    """A frozen row becomes one that is none, the last, wherever it stands."""
    frozen = {name: jnp.arange(ROWS) == 1 for name in names}
    expected = {name: name not in names for name in ("embedding", "first_order")}
    assert lowered_writes(frozen) == expected
