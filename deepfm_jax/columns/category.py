"""The base class of categorical columns, whether a cell holds one value or several."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from deepfm_jax.cells.categories import CategoricalType, typed_categories
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.coders.vocabulary import VocabularyCoder
from deepfm_jax.coders.without_vocabulary import GivenIdsCoder, HashedCoder
from deepfm_jax.columns.column import Column, Field
from deepfm_jax.columns.encoding_options import EncodingOptions, given
from deepfm_jax.columns.option_checks import has_vocabulary


class Category(Field):
    """A field whose values are categories; ``Categorical`` documents the options."""

    dtype: CategoricalType
    min_count: int
    separate_missing: bool
    max_size: int | None
    hash_buckets: int | None
    size: int | None
    shares_with: str | None

    is_category: ClassVar[bool] = True

    @property
    def has_vocabulary(self) -> bool:
        """Whether the column has a vocabulary of its training values."""
        return has_vocabulary(self)

    @property
    def coder(self) -> type[FieldCoder]:
        if self.has_vocabulary:
            return VocabularyCoder
        if self.shares_with is not None:
            return FieldCoder  # The ids are those of the owner's coder.
        return GivenIdsCoder if self.hash_buckets is None else HashedCoder

    @property
    def owner(self) -> str | None:
        return self.shares_with

    @property
    def value_type(self) -> pa.DataType:
        return pa.string() if self.dtype == "string" else pa.int64()

    @property
    def value_noun(self) -> str:
        return self.dtype

    @property
    def id_options(self) -> Mapping[str, Any]:
        return {"dtype": self.dtype, "size": self.size}

    def with_options(self, options: EncodingOptions) -> Column:
        if self.shares_with is not None:
            return self
        changed = given(separate_missing=options.separate_missing)
        if options.hash_buckets is not None and self.dtype != "id":
            changed |= {"hash_buckets": options.hash_buckets, "min_count": 1, "max_size": None}
        elif self.has_vocabulary:
            changed |= given(min_count=options.min_count, max_size=options.max_size)
        return dataclasses.replace(self, **changed)

    def type_values(self, cells: pa.Array) -> TypedValues:
        return typed_categories(cells, self.dtype, self.size)
