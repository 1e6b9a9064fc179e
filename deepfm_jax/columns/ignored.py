"""Columns that are not read."""

import dataclasses
from typing import ClassVar

from deepfm_jax.columns.column import Column


@dataclasses.dataclass(frozen=True)
class Ignored(Column):
    """A column of the file that is not read."""

    is_read: ClassVar[bool] = False
    profile: ClassVar[str | None] = None
