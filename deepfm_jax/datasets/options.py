"""Options of a data set's encoding, and the origin of a prepared data set."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from deepfm_jax.columns import EncodingOptions
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import absolute
from deepfm_jax.schema import Cross, Schema

OPTIONS_FILE, SOURCE_FILE = "options.json", "source.json"


@dataclasses.dataclass(frozen=True)
class BuildOptions(EncodingOptions):
    """Options of the encoding; None keeps the builder's own choice.

    Attributes beside those of ``EncodingOptions``:
      max_bad_rows: Number of bad rows tolerated (and counted) in each split.
      rows: Training rows to simulate; only for the ``synthetic`` data set.
      crosses: Columns of each cross-product feature, added to those of the builder.
      cross_buckets: Number of buckets of each added cross.
      time_column: Split the rows of one file by the times in this column (see ``splitting``)
        instead of by a draw.
      schema: Data of a ``Schema``, as from its ``to_dict``; only for the ``tabular`` and ``libsvm``
        data sets.
      extend_from: Folder of an encoder whose ids are kept (see ``extension.extend``).

    Raises:
      UserError: ``crosses`` is not a list of lists of column names, or ``schema`` is not valid.
    """

    max_bad_rows: int = 0
    rows: int | None = None
    crosses: Sequence[Sequence[str]] = ()
    cross_buckets: int = 100_000
    time_column: str | None = None
    schema: Mapping[str, Any] | None = None
    extend_from: str | None = None

    def __post_init__(self):
        if self.extend_from is not None:
            object.__setattr__(self, "extend_from", os.path.abspath(self.extend_from))
        if self.schema is not None:
            # Equal schemas must compare equal whichever defaults they leave out.
            object.__setattr__(self, "schema", Schema.from_dict(self.schema).to_dict())
        # A string is a sequence of strings too: each letter of "C1,C2" would count as a column.
        if not (_is_list(self.crosses) and all(_is_list_of_names(part) for part in self.crosses)):
            raise UserError(
                f"crosses={self.crosses!r} must be a list of lists of columns, e.g. [['C1', 'C2']]"
            )
        # JSON and configs have lists, and equal options must compare equal.
        object.__setattr__(self, "crosses", tuple(tuple(columns) for columns in self.crosses))

    def apply(self, schema: Schema) -> Schema:
        """Applies these options to the builder's schema.

        Raises:
          UserError: the schema cannot have a cross (see ``Schema``).
        """
        crosses = (Cross(tuple(columns), self.cross_buckets) for columns in self.crosses)
        return dataclasses.replace(
            schema,
            columns=tuple(column.with_options(self) for column in schema.columns),
            crosses=(*schema.crosses, *crosses),
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_list_of_names(value: Any) -> bool:
    return _is_list(value) and all(isinstance(name, str) for name in value)


def origin(options: BuildOptions, source: str | os.PathLike[str] | None) -> dict[str, str]:
    """What a data set is made from besides its options: the content of ``SOURCE_FILE``."""
    made_of = {} if source is None else {"source": absolute(source)}
    if options.extend_from is not None:
        # The folder may hold another encoder later.
        made_of["extended_encoder"] = Encoder.load(options.extend_from).fingerprint()
    return made_of
