"""What a user may change about a data set's encoding, and what a prepared one was made of."""

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
    """What a user may change about the encoding; None keeps the builder's own choice.

    Attributes beside those of ``EncodingOptions``:
      max_bad_rows: Bad rows tolerated (and counted) in each split.
      rows: Training rows to simulate; the ``synthetic`` data set only.
      crosses: Columns of each cross-product feature, added to those of the builder.
      cross_buckets: Buckets of each of them.
      time_column: Split the rows of one file by the times of this column (see ``splitting``), and
        not by a draw.
      schema: Data of a ``Schema``, as its ``to_dict`` gives; the ``tabular`` and ``libsvm`` data
        sets only.
      extend_from: Folder of an encoder whose ids stay (see ``extension.extend``).

    Raises:
      UserError: ``crosses`` is not a list of lists of column names, or ``schema`` no schema.
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
            # Equal schemas must be equal whatever they leave out.
            object.__setattr__(self, "schema", Schema.from_dict(self.schema).to_dict())
        # A string is a sequence of strings too: each letter of "C1,C2" would pass for a column.
        if not (_is_list(self.crosses) and all(_is_list_of_names(part) for part in self.crosses)):
            raise UserError(
                f"crosses={self.crosses!r} must be a list of lists of columns, as [['C1', 'C2']]"
            )
        # JSON and configs have lists, and equal options must be equal.
        object.__setattr__(self, "crosses", tuple(tuple(columns) for columns in self.crosses))

    def apply(self, schema: Schema) -> Schema:
        """The schema with these choices in place of the builder's.

        Raises:
          UserError: a cross that the schema cannot have (see ``Schema``).
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
    """What a data set is made of beside its options, as ``SOURCE_FILE`` keeps it."""
    made_of = {} if source is None else {"source": absolute(source)}
    if options.extend_from is not None:
        # The folder may come to hold another encoder.
        made_of["extended_encoder"] = Encoder.load(options.extend_from).fingerprint()
    return made_of
