"""Ids that need no vocabulary: hashes of values, and ids that the column itself holds."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from deepfm_jax.coders.coder import CodedField, FieldCoder
from deepfm_jax.coders.hashing import hash_integers, hash_text
from deepfm_jax.errors import UserError


@runtime_checkable
class HashedField(CodedField, Protocol):
    """A field of hashed values."""

    @property
    def hash_buckets(self) -> int | None:
        """Number of hash buckets."""
        ...


@dataclasses.dataclass(frozen=True)
class HashedCoder(FieldCoder):
    """Ids 1 to ``hash_buckets`` by a hash of the value; a missing cell has id 0."""

    field: HashedField

    @property
    def dim(self) -> int:
        return self._buckets + 1

    @property
    def _buckets(self) -> int:
        assert self.field.hash_buckets is not None  # Otherwise it would have another coder.
        return self.field.hash_buckets

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        if pa.types.is_integer(cells.type):
            hashed = hash_integers(cells.fill_null(0).to_numpy())
        else:
            hashed = hash_text(cells.cast(pa.string()))
        return (hashed % self._buckets).astype(np.int32) + 1


@runtime_checkable
class GivenIdsField(CodedField, Protocol):
    """A field whose values are already ids."""

    @property
    def size(self) -> int | None:
        """Number of ids, which run from 0 to ``size - 1``."""
        ...


@dataclasses.dataclass(frozen=True)
class GivenIdsCoder(FieldCoder):
    """Keeps the column's own ids; a missing cell has id 0."""

    field: GivenIdsField

    @property
    def first_id(self) -> int:
        return 0

    @property
    def dim(self) -> int:
        assert self.field.size is not None  # Otherwise it would have another coder.
        return self.field.size

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        ids = cells.fill_null(0).to_numpy()
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.dim:
            raise UserError(
                f"column {self.field.name}: ids from {ids.min()} to {ids.max()} are not all "
                f"between 0 and {self.dim - 1}"
            )
        return ids
