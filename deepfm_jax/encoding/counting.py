"""Counts of the values in the training rows, to which an encoder is fitted."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.vocabulary import merge_counts
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Column, Field, Schema

# Tables of counts merged at a time: few enough to bound memory, enough to keep merging cheap.
_MERGE_EVERY = 16


def counted_columns(schema: Schema) -> dict[str, tuple[Field, ...]]:
    """The columns on whose values each fitted field depends: its own and those that share its ids.

    Only fields with a vocabulary or statistics are fitted; they are given by name.
    """
    counted: dict[str, tuple[Field, ...]] = {}
    for field, owner_number in zip(schema.fields, schema.owners, strict=True):
        owner = schema.fields[owner_number]
        if owner.coder.IS_FITTED:
            counted[owner.name] = (*counted.get(owner.name, ()), field)
    return counted


def count_values(
    tables: Iterable[pa.Table], counted: Mapping[str, Sequence[Column]]
) -> dict[str, pa.Table]:
    """Counts how often each value occurs in typed rows, by name; see ``ValueCounter``.

    Raises:
      UserError: there are no rows.
    """
    counter, seen = ValueCounter(counted), False
    for table in tables:
        seen = True
        counter.add(table)
    check_seen(seen)
    return counter.counts()


def check_seen(seen: bool) -> None:
    """Checks that there is any row to fit an encoder on.

    Raises:
      UserError: there is no row.
    """
    if not seen:
        raise UserError("the training split has no rows to fit an encoder on")


class ValueCounter:
    """Counts how often each value of some columns occurs in the rows that are added.

    In lists, each value that is kept counts.
    """

    def __init__(self, counted: Mapping[str, Sequence[Column]]):
        """Starts one count per name, over the values of all columns under that name."""
        self._counted = counted
        self._counts: dict[str, list[pa.Table]] = {name: [] for name in counted}

    def add(self, table: pa.Table) -> None:
        """Counts the typed rows of a table."""
        for name, columns in self._counted.items():
            parts = self._counts[name]
            for column in columns:
                parts.append(_counted(column.counted_values(table[column.name])))
            if len(parts) >= _MERGE_EVERY:
                parts[:] = [merge_counts(parts)]

    @property
    def size(self) -> int:
        """Number of counts held; a value may have several."""
        return sum(part.num_rows for parts in self._counts.values() for part in parts)

    def counts(self) -> dict[str, pa.Table]:
        """The counts by name, with columns ``value`` and ``count``; empty if no row was added."""
        return {name: merge_counts(parts) for name, parts in self._counts.items() if parts}


def _counted(cells: pa.Array) -> pa.Table:
    if not pa.types.is_dictionary(cells.type):
        return pa.table(pc.value_counts(cells).flatten(), names=["value", "count"])
    # The last distinct cell is the missing one.
    distinct = pa.concat_arrays([cells.dictionary, pa.nulls(1, cells.dictionary.type)])
    places = cells.indices.fill_null(len(cells.dictionary))
    counts = pa.array(np.bincount(places, minlength=len(distinct)))
    return pa.table({"value": distinct, "count": counts}).filter(pc.greater(counts, 0))
