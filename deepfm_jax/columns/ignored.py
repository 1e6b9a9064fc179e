"""Columns that are not read."""

import dataclasses
from typing import ClassVar

from deepfm_jax.columns.column import Column


@dataclasses.dataclass(frozen=True)
class Ignored(Column):
    """A column that stands in the file and is not read."""

    is_read: ClassVar[bool] = False
    profile: ClassVar[str | None] = None
