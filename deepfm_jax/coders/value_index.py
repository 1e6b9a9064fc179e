"""Finding values in a vocabulary, however large, many times over."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.hashing import hash_text

# Of the vocabulary; from there on a binary search is faster than a look at each of its values.
_LARGE = 200_000


class ValueIndex:
    """Places of values in a vocabulary.

    pyarrow's ``index_in(cells, vocabulary)`` makes a hash table of the whole vocabulary at each
    call, which for a million values takes longer than all else that is done with a block of rows.
    Here the table is one of the cells, which are few, and a large vocabulary is sorted once, by
    value or by hash, and searched.
    """

    def __init__(self, values: pa.Array):
        """Of distinct strings or int64, without nulls."""
        self._values = values
        self._sorted = len(values) >= _LARGE
        if self._sorted:
            keys = _keys(values)
            self._order = np.argsort(keys)
            self._keys = keys[self._order]
            self._sorted = not (self._keys[1:] == self._keys[:-1]).any()

    def places(self, cells: pa.Array) -> np.ndarray:
        """The place of each cell among the values, from 0; -1 where it is none or null."""
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
        # Other texts than the vocabulary's may have the hash of one.
        same = pc.fill_null(pc.equal(self._values.take(pa.array(places)), cells), False)
        return np.where(same, places, -1)


def _keys(values: pa.Array) -> np.ndarray:
    """What values are sorted by; those of nulls mean nothing."""
    if pa.types.is_integer(values.type):
        return values.fill_null(0).to_numpy()
    return hash_text(values)
