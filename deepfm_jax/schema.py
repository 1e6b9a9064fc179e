"""What the columns of a click log mean: declared once, carried by data, checkpoint and model."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from deepfm_jax.errors import UserError

NumericTransform: TypeAlias = Literal["log", "log2_floor", "standardise", "quantile"]


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column of string or integer values; each value kept gets one id of the field.

    Attributes:
      name: Column name.
      dtype: ``"string"`` takes a cell as it stands; ``"integer"`` parses it, so that ``007`` and
        ``7`` are one value and ``x7`` is a bad row.
      min_count: Values seen in fewer training rows than this share id 0.
      separate_missing: Give missing cells id 1, apart from the unseen and rare values of id 0.
    """

    name: str
    dtype: Literal["string", "integer"] = "string"
    min_count: int = 1
    separate_missing: bool = False


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A column of numbers, as one value field or as buckets.

    Attributes:
      name: Column name.
      transform: ``"log"``: id 1 with value sign(x) ln(1 + abs(x)); ``"standardise"``: id 1 with
        value (x - mean) / std of the training rows; ``"log2_floor"``: the bucket floor(ln(x)^2) for
        x > 2, else floor(x), as a category (the Criteo winners' transform); ``"quantile"``: the
        index of the training quantile that x falls in, as a category. A missing cell has id 0 and
        value 1, so it owns an embedding.
      buckets: Number of quantile buckets.
      min_count: Buckets of ``"log2_floor"`` seen in fewer training rows than this share id 0.
      separate_missing: For the two bucket transforms, as in ``Categorical``.
    """

    name: str
    transform: NumericTransform = "log"
    buckets: int = 32
    min_count: int = 1
    separate_missing: bool = False

    @property
    def is_value_field(self) -> bool:
        """Whether the number itself is the feature's value, under one id."""
        return self.transform in ("log", "standardise")


@dataclasses.dataclass(frozen=True)
class Label:
    """The column to predict, 0 or 1 in every row."""

    name: str


@dataclasses.dataclass(frozen=True)
class Ignored:
    """A column that stands in the file and is not read."""

    name: str


Column: TypeAlias = Categorical | Numeric | Label | Ignored
Field: TypeAlias = Categorical | Numeric
_KINDS = {kind.__name__.lower(): kind for kind in get_args(Column)}


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How rows stand in a text file.

    Attributes:
      delimiter: One character between cells.
      header: Whether the first line names the columns. Without a header, the columns of the
        schema must be those of the file, in the file's order.
      quoting: Whether ``"`` may quote a cell.
    """

    delimiter: str = ","
    header: bool = True
    quoting: bool = True


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a data set in file order, and the layout of its text files.

    Raises:
      UserError: a name declared twice, or no field, or not exactly one label.
    """

    columns: tuple[Column, ...]
    text: TextFormat = TextFormat()

    def __post_init__(self):
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"schema declares column {twice[0]!r} twice; give each its own name")
        if not self.fields:
            raise UserError("schema declares no categorical or numeric column; a model needs one")
        labels = [column.name for column in self.columns if isinstance(column, Label)]
        if len(labels) != 1:
            raise UserError(f"schema declares {len(labels)} labels {labels}; declare exactly one")

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns that carry features, in the order of the model's fields."""
        return tuple(c for c in self.columns if isinstance(c, Categorical | Numeric))

    @property
    def has_values(self) -> bool:
        """Whether any feature's value may differ from 1."""
        return any(isinstance(field, Numeric) and field.is_value_field for field in self.fields)

    @property
    def label(self) -> Label:
        """The column to predict."""
        return next(column for column in self.columns if isinstance(column, Label))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        return {
            "text": dataclasses.asdict(self.text),
            "columns": [
                {"kind": type(column).__name__.lower(), **dataclasses.asdict(column)}
                for column in self.columns
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Schema":
        """Reads what ``to_dict`` wrote."""
        columns = []
        for entry in data["columns"]:
            options = dict(entry)
            kind = options.pop("kind")
            if kind not in _KINDS:
                raise UserError(f"column kind {kind!r} is unknown; use one of {sorted(_KINDS)}")
            columns.append(_KINDS[kind](**options))
        return cls(columns=tuple(columns), text=TextFormat(**data["text"]))
