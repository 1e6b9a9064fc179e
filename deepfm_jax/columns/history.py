"""Columns of past events."""

import dataclasses
from typing import ClassVar

from deepfm_jax.columns.column import Column
from deepfm_jax.columns.encoding_options import EncodingOptions, given
from deepfm_jax.columns.multi_valued import MultiValued


@dataclasses.dataclass(frozen=True)
class History(MultiValued):
    """A column of past events, oldest first, such as the items that a user clicked on.

    It differs from ``MultiValued`` only in cells that are too long: they keep their *last*
    ``max_length`` values, the newest, in order. If ``shares_with`` names the column of the
    candidate item, an item has the same embedding in both.
    """

    keeps_last: ClassVar[bool] = True

    def with_options(self, options: EncodingOptions) -> Column:
        shortened = dataclasses.replace(self, **given(max_length=options.history_length))
        return super(History, shortened).with_options(options)
