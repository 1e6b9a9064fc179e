"""Columns of what came before."""

import dataclasses
from typing import ClassVar

from deepfm_jax.columns.column import Column
from deepfm_jax.columns.encoding_options import EncodingOptions, given
from deepfm_jax.columns.multi_valued import MultiValued


@dataclasses.dataclass(frozen=True)
class History(MultiValued):
    """A column of what came before, oldest first, as the items that a user clicked on.

    As ``MultiValued``, but for a cell that is too long: it keeps its *last* ``max_length`` values,
    the newest, in their order. With ``shares_with`` naming the column of the item in question, an
    item has one embedding in both.
    """

    keeps_last: ClassVar[bool] = True

    def with_options(self, options: EncodingOptions) -> Column:
        shortened = dataclasses.replace(self, **given(max_length=options.history_length))
        return super(History, shortened).with_options(options)
