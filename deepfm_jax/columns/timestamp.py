"""Columns of times."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.cells.times import TimePart, seconds_of_cells, time_part
from deepfm_jax.cells.typed import TypedValues
from deepfm_jax.columns.categorical import Categorical
from deepfm_jax.columns.column import Column
from deepfm_jax.columns.encoding_options import EncodingOptions, given
from deepfm_jax.errors import UserError

_SECONDS_OF_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Timestamp(Column):
    """A column of times, encoded as categories: the hour, the weekday and so on.

    Attributes:
      name: Column name.
      format: ``"iso"`` (``2014-10-21``, ``2014-10-21 09:30:00``), ``"unix"`` (seconds since 1970),
        ``"unix_ms"``, or a strptime format such as ``"%y%m%d%H"``. Times with a zone are converted
        to UTC; a Parquet column of times or dates needs no format.
      parts: The categories, each a field named ``NAME_PART``: ``hour`` (0 to 23), ``weekday``
        (Monday is 0), ``weekend`` (0 or 1), ``day`` of the month and ``month``. Without parts the
        column has no field and only serves to split rows by time.
      separate_missing: As in ``Categorical``.

    Raises:
      UserError: an unknown or duplicate part.
    """

    format: str = "iso"
    parts: tuple[TimePart, ...] = ("hour", "weekday")
    separate_missing: bool = False

    is_ordered: ClassVar[bool] = True
    profile: ClassVar[str | None] = "times"

    def __post_init__(self):
        if self.format not in ("iso", "unix", "unix_ms") and "%" not in self.format:
            raise UserError(
                f"column {self.name!r}: format={self.format!r} is unknown; use 'iso', 'unix', "
                "'unix_ms' or a strptime format such as '%Y-%m-%d'"
            )
        if len(set(self.parts)) < len(self.parts):
            raise UserError(f"column {self.name!r}: parts={self.parts} has duplicates")

    @property
    def fields(self) -> tuple[Categorical, ...]:
        """One category for each part."""
        return tuple(
            Categorical(f"{self.name}_{part}", "integer", separate_missing=self.separate_missing)
            for part in self.parts
        )

    def with_options(self, options: EncodingOptions) -> Column:
        return dataclasses.replace(self, **given(separate_missing=options.separate_missing))

    def type_values(self, cells: pa.Array) -> TypedValues:
        """Seconds since 1970 (UTC); see ``Column.type_values``."""
        seconds, bad = seconds_of_cells(cells, self.format)
        return seconds, bad, f"is not a time ({self.format})"

    def derived(self, typed: pa.Array) -> Mapping[str, pa.Array]:
        pairs = zip(self.fields, self.parts, strict=True)
        return {field.name: time_part(typed, part) for field, part in pairs}

    def profiled_values(self, typed: pa.Array) -> pa.Array:
        """Hours since 1970, because there may be as many distinct seconds as rows."""
        hours = typed.fill_null(0).to_numpy() // _SECONDS_OF_HOUR
        return pa.array(hours, mask=pc.is_null(typed).to_numpy(zero_copy_only=False))
