"""Copies the rows of a table into a larger one, in which fields have additional rows at the end."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from deepfm_jax.distributed.partitioning import SHARD_AXIS, TABLE_SPEC
from deepfm_jax.embedding.layout import Space, TableLayout
from deepfm_jax.errors import UserError
from deepfm_jax.features import Feature


class Run(NamedTuple):
    """Consecutive rows that move together.

    Attributes:
      old: First row in the smaller table.
      new: First row in the larger table.
      rows: Number of rows.
    """

    old: int
    new: int
    rows: int


def kept_runs(old: TableLayout, new: TableLayout) -> dict[str, tuple[Run, ...]]:
    """The runs of rows to copy, by array name.

    Neighbouring rows that move by the same distance form one run.

    Raises:
      UserError: the tables differ in more than the rows of fields, or a field has fewer rows.
    """
    fields, new_fields = old.features, new.features
    if len(fields) != len(new_fields):
        raise UserError(f"the older table has {len(fields)} fields, and this one {len(new_fields)}")
    for index, (before, after) in enumerate(zip(fields, new_fields, strict=True)):
        _check_field(index, before, after)
    runs = {}
    for before, after in zip(old.spaces, new.spaces, strict=True):
        of_space = _runs_of_space(old, before, after)
        runs |= dict.fromkeys(before.names, of_space)
    return runs


def _runs_of_space(old: TableLayout, before: Space, after: Space) -> tuple[Run, ...]:
    moves = sorted(
        (start, new_start, old.features[field].rows)
        for field, start, new_start in zip(
            before.fields, before.first_rows, after.first_rows, strict=True
        )
        if old.features[field].shared_with is None
    )
    runs: list[Run] = []
    for start, new_start, rows in moves:
        last = runs[-1] if runs else None
        if last is not None and (start, new_start) == (last.old + last.rows, last.new + last.rows):
            runs[-1] = last._replace(rows=last.rows + rows)
        else:
            runs.append(Run(start, new_start, rows))
    return tuple(runs)


def _check_field(index: int, before: Feature, after: Feature) -> None:
    if before.shared_with != after.shared_with:
        raise UserError(f"field {index} shares its rows with another in only one of the tables")
    if before.rows > after.rows:
        raise UserError(
            f"field {index} has {before.rows} rows in the older table and {after.rows} in this one"
        )
    for name in ("slots", "size", "dim"):
        there, here = getattr(before, name), getattr(after, name)
        if there != here:
            raise UserError(
                f"field {index} has {name}={there} in the older table and {name}={here} in this one"
            )


def copy_rows(
    old: Mapping[str, jax.Array],
    new: Mapping[str, jax.Array],
    rows: Mapping[str, int],
    runs: Mapping[str, Sequence[Run]],
    mesh: Mesh,
    *,
    striped: bool,
) -> dict[str, jax.Array]:
    """The arrays of ``new``, which are donated, with the rows of ``old`` copied into them.

    Striped rows move between shards, one run at a time. All rows of a run on one shard go to the
    same shard, so a device holds its parts of both tables and of one run, never the whole table.

    Args:
      old: Arrays of the smaller table by name, laid out on ``mesh``.
      new: Arrays of the larger table, with the same layout, names and dtypes.
      rows: Number of rows of each array of ``old``, without padding of stripes; arrays may end
        before V.
      runs: See ``kept_runs``.
      mesh: Devices.
      striped: Whether rows are striped over the mesh's shards (see ``embedding.stripes``).
    """
    return {
        name: _copied(
            old[name], array, runs=_up_to(runs[name], rows[name]), mesh=mesh, striped=striped
        )
        for name, array in new.items()
    }


def _up_to(runs: Sequence[Run], rows: int) -> tuple[Run, ...]:
    return tuple(run._replace(rows=min(run.rows, rows - run.old)) for run in runs if run.old < rows)


@functools.partial(jax.jit, static_argnames=("runs", "mesh", "striped"), donate_argnames=("new",))
def _copied(
    old: Shaped[Array, "old_rows *dim"],
    new: Shaped[Array, "rows *dim"],
    *,
    runs: tuple[Run, ...],
    mesh: Mesh,
    striped: bool,
) -> Shaped[Array, "rows *dim"]:
    if not striped:
        for run in runs:
            new = new.at[run.new : run.new + run.rows].set(old[run.old : run.old + run.rows])
        return jax.lax.with_sharding_constraint(new, NamedSharding(mesh, PartitionSpec()))
    body = functools.partial(_between_shards, runs=runs, shards=mesh.shape[SHARD_AXIS])
    specs = (TABLE_SPEC, TABLE_SPEC)
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=TABLE_SPEC, check_vma=False)(
        old, new
    )


def _between_shards(
    old: Shaped[Array, "old_rows *dim"],
    new: Shaped[Array, "rows *dim"],
    *,
    runs: tuple[Run, ...],
    shards: int,
) -> Shaped[Array, "rows *dim"]:
    """One shard's rows of ``new``; of n shards, shard r mod n has row r at floor(r / n)."""
    shard = jax.lax.axis_index(SHARD_AXIS)
    for run in runs:
        distance = run.new - run.old

        def number(row: int, shard=shard):
            """The index of the shard's first row that is ``row`` or later."""
            return (row - shard + shards - 1) // shards

        width = jnp.arange(-(-run.rows // shards))
        sent = jnp.take(old, number(run.old) + width, axis=0, mode="clip")
        sent = jax.lax.ppermute(
            sent, SHARD_AXIS, [(s, (s + distance) % shards) for s in range(shards)]
        )
        sender = (shard - distance) % shards
        first = number(run.old, sender)
        # Some shards have one row of the run less than others.
        inside = width < number(run.old + run.rows, sender) - first
        places = first + width + (sender + distance) // shards
        new = new.at[jnp.where(inside, places, len(new))].set(sent, mode="drop")
    return new
