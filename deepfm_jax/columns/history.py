"""Columns of what came before."""

import dataclasses
from typing import ClassVar

from deepfm_jax.columns.choices import EncodingChoices, chosen
from deepfm_jax.columns.column import Column
from deepfm_jax.columns.multi_valued import MultiValued


@dataclasses.dataclass(frozen=True)
class History(MultiValued):
    """A column of what came before, oldest first, as the items that a user clicked on.

    As ``MultiValued``, but for a cell that is too long: it keeps its *last* ``max_length`` values,
    the newest, in their order. With ``shares_with`` naming the column of the item in question, an
    item has one embedding in both.
    """

    keeps_last: ClassVar[bool] = True

    def with_choices(self, choices: EncodingChoices) -> Column:
        shortened = dataclasses.replace(self, **chosen(max_length=choices.history_length))
        return super(History, shortened).with_choices(choices)
