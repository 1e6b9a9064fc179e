"""Repeated lookups of values in a vocabulary of any size."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.hashing import hash_text

# Size of a vocabulary from which a binary search is faster than a scan of all its values.
_LARGE = 200_000


class ValueIndex:
    """Finds the positions of values in a vocabulary.

    pyarrow's ``index_in(cells, vocabulary)`` builds a hash table of the whole vocabulary on each
    call, which for a million values takes longer than all other work on a block of rows. Here the
    hash table holds the few distinct cells instead, and a large vocabulary is sorted once, by value
    or by hash, and searched.
    """

    def __init__(self, values: pa.Array):
        """Indexes distinct strings or int64 values without nulls."""
        self._values = values
        self._sorted = len(values) >= _LARGE
        if self._sorted:
            keys = _keys(values)
            self._order = np.argsort(keys)
            self._keys = keys[self._order]
            self._sorted = not (self._keys[1:] == self._keys[:-1]).any()

    def places(self, cells: pa.Array) -> np.ndarray:
        """The position of each cell among the values, from 0; -1 if it is absent or null."""
        return self._searched(cells) if self._sorted else self._probed(cells)

    def _probed(self, cells: pa.Array) -> np.ndarray:
        distinct = cells.dictionary_encode()
        count = len(distinct.dictionary)
        found = pc.index_in(self._values, value_set=distinct.dictionary)
        places = np.full(count + 1, -1)
        places[found.drop_null().to_numpy()] = np.flatnonzero(found.is_valid())
        return places[distinct.indices.fill_null(count).to_numpy()]

    def _searched(self, cells: pa.Array) -> np.ndarray:
        keys = _keys(cells)
        nearest = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        places = self._order[nearest]
        # A text outside the vocabulary may have the same hash as one inside.
        same = pc.fill_null(pc.equal(self._values.take(pa.array(places)), cells), False)
        return np.where(same, places, -1)


def _keys(values: pa.Array) -> np.ndarray:
    """Sort keys of values; the keys of nulls are undefined."""
    if pa.types.is_integer(values.type):
        return values.fill_null(0).to_numpy()
    return hash_text(values)
