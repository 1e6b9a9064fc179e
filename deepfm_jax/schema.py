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
class Cross:
    """A cross-product feature: which values stand together in a row, as a category of its own.

    phi_k(x) = prod_i x_i^{c_ki}, c_ki in {0, 1}: feature k is 1 where all of its parts are. The
    features of one cross take one value of each of its columns.

    Deviation: the paper gives each conjunction a weight of its own; here they are hashed into
    buckets, and the conjunctions of one bucket share it.

    Source: Cheng et al. 2016, Wide & Deep, Eq. 1 (arXiv 1606.07792).

    Attributes:
      columns: Two or more columns that are read as categories. Their order does not matter.
      buckets: Ids of the conjunctions, below 2^31; id 0, for what is unseen or missing, is one
        more.

    Raises:
      UserError: fewer than two columns, one of them twice, or a number of buckets out of range.
    """

    columns: tuple[str, ...]
    buckets: int = 100_000

    def __post_init__(self):
        if len(self.columns) < 2:
            raise UserError(f"cross {self.name!r} needs two columns or more")
        for column in self.columns:
            if self.columns.count(column) > 1:
                raise UserError(f"cross {self.name!r} has column {column!r} twice")
        if not 1 <= self.buckets < 2**31:
            raise UserError(f"cross {self.name!r}: buckets={self.buckets} must be 1 to 2^31 - 1")

    @property
    def name(self) -> str:
        """What it is called for people."""
        return " x ".join(self.columns)


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
    """The columns of a data set in file order, the layout of its text files, and its crosses.

    Raises:
      UserError: a name declared twice, or no field, or not exactly one label, or a cross that is
        there twice or of a column that is no category.
    """

    columns: tuple[Column, ...]
    text: TextFormat = TextFormat()
    crosses: tuple[Cross, ...] = ()

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
        for cross in self.crosses:
            self._check_columns(cross)
        parts = [frozenset(cross.columns) for cross in self.crosses]
        for cross, columns in zip(self.crosses, parts, strict=True):
            if parts.count(columns) > 1:
                raise UserError(
                    f"schema declares cross {cross.name!r} twice (in any order of its columns)"
                )

    def _check_columns(self, cross: Cross) -> None:
        fields = {field.name: field for field in self.fields}
        for name in cross.columns:
            if name not in fields:
                raise UserError(
                    f"cross {cross.name!r}: {name!r} is not a categorical or numeric column; "
                    f"those are {', '.join(fields)}"
                )
            field = fields[name]
            if isinstance(field, Numeric) and field.is_value_field:
                raise UserError(
                    f"cross {cross.name!r}: transform {field.transform!r} makes column {name!r} a "
                    "value, which cannot be crossed; make it buckets, by transform 'quantile' or "
                    "'log2_floor'"
                )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The columns that carry features, in the order of the model's fields."""
        return tuple(c for c in self.columns if isinstance(c, Categorical | Numeric))

    @property
    def slot_names(self) -> tuple[str, ...]:
        """What each slot of an encoded row holds: the fields, then the crosses."""
        return tuple(source.name for source in (*self.fields, *self.crosses))

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
        data = {
            "text": dataclasses.asdict(self.text),
            "columns": [
                {"kind": type(column).__name__.lower(), **dataclasses.asdict(column)}
                for column in self.columns
            ],
        }
        # A schema without crosses keeps the text, and so the encoder the fingerprint, that it had
        # before there were any.
        if self.crosses:
            data["crosses"] = [dataclasses.asdict(cross) for cross in self.crosses]
        return data

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
        crosses = tuple(
            Cross(tuple(entry["columns"]), entry["buckets"]) for entry in data.get("crosses", ())
        )
        return cls(columns=tuple(columns), text=TextFormat(**data["text"]), crosses=crosses)
