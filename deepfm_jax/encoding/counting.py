"""How often each value stands in the training rows: all that an encoder is fitted on."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.vocabulary import merge_counts
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Column, Field, Schema

# Chunks of counts merged at a time: few enough to bound memory, enough to keep merging cheap.
_MERGE_EVERY = 16


def counted_columns(schema: Schema) -> dict[str, tuple[Field, ...]]:
    """The columns whose values each field is fitted on, if any: its own and those that share it.

    Of each field that has a vocabulary of its own, or statistics, by its name.
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
    """How often each value stands in typed rows, by name; see ``ValueCounter``.

    Raises:
      UserError: no rows.
    """
    counter, seen = ValueCounter(counted), False
    for table in tables:
        seen = True
        counter.add(table)
    check_seen(seen)
    return counter.counts()


def check_seen(seen: bool) -> None:
    """Whether there is any row to fit an encoder on.

    Raises:
      UserError: there is none.
    """
    if not seen:
        raise UserError("the training split has no rows to fit an encoder on")


class ValueCounter:
    """Counts how often each value of some columns stands in the rows that are added.

    Of lists each value that is kept is counted.
    """

    def __init__(self, counted: Mapping[str, Sequence[Column]]):
        """Counts by name, each of the values of one column or of several together."""
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
        """Counts held, a value may have several of them."""
        return sum(part.num_rows for parts in self._counts.values() for part in parts)

    def counts(self) -> dict[str, pa.Table]:
        """By name, if any rows were added; columns ``value`` and ``count``."""
        return {name: merge_counts(parts) for name, parts in self._counts.items() if parts}


def _counted(cells: pa.Array) -> pa.Table:
    if not pa.types.is_dictionary(cells.type):
        return pa.table(pc.value_counts(cells).flatten(), names=["value", "count"])
    # A missing cell is the last of the distinct ones.
    distinct = pa.concat_arrays([cells.dictionary, pa.nulls(1, cells.dictionary.type)])
    places = cells.indices.fill_null(len(cells.dictionary))
    counts = pa.array(np.bincount(places, minlength=len(distinct)))
    return pa.table({"value": distinct, "count": counts}).filter(pc.greater(counts, 0))
