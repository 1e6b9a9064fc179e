"""What the columns of a click log mean: declared once, carried by data, checkpoint and model."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from deepfm_jax.dataclass_data import from_data, to_data
from deepfm_jax.errors import UserError
from deepfm_jax.schema.columns import (
    Categorical,
    Category,
    Column,
    Field,
    Group,
    Label,
    Numeric,
    Timestamp,
    Weight,
)

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
      trim: Whether spaces around a cell are no part of it. (Around numbers they never are.)
      missing: Texts that stand for a missing value, as ``NA``; an empty cell always does.

    Raises:
      UserError: a delimiter that is not one character.
    """

    delimiter: str = ","
    header: bool = True
    quoting: bool = True
    trim: bool = False
    missing: tuple[str, ...] = ()

    def __post_init__(self):
        if len(self.delimiter) != 1 or not self.delimiter.isascii():
            raise UserError(f"delimiter={self.delimiter!r} must be one (ASCII) character")
        if self.delimiter in "\r\n" or (self.quoting and self.delimiter == '"'):
            raise UserError(f"delimiter={self.delimiter!r} ends lines or quotes cells; use another")


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a data set in file order, the layout of its text files, and its crosses.

    Raises:
      UserError: a name declared twice, or no field, or no label, or two weights or groups, or a
        cross that is there twice or of a column that is no category, or a vocabulary shared with a
        column that has none to share.
    """

    columns: tuple[Column, ...]
    text: TextFormat = TextFormat()
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self):
        names = [column.name for column in self.columns]
        for column in self.columns:
            if isinstance(column, Timestamp):
                names += [field.name for field in column.fields]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise UserError(f"schema declares column {twice[0]!r} twice; give each its own name")
        if not self.fields:
            raise UserError(
                "schema declares no categorical, numeric or time column; a model needs one"
            )
        for field in self.fields:
            self._check_owner(field)
        if not self.labels:
            raise UserError("schema declares no label; declare one column or more as labels")
        for kind, columns in (("weight", self._weights), ("group", self._groups)):
            if len(columns) > 1:
                raise UserError(f"schema declares {columns[0]!r} and {columns[1]!r} as {kind}s")
        for cross in self.crosses:
            self._check_columns(cross)
        parts = [frozenset(cross.columns) for cross in self.crosses]
        for cross, columns in zip(self.crosses, parts, strict=True):
            if parts.count(columns) > 1:
                raise UserError(
                    f"schema declares cross {cross.name!r} twice (in any order of its columns)"
                )

    def _check_owner(self, field: Field) -> None:
        if isinstance(field, Numeric) or field.shares_with is None:
            return
        where = f"column {field.name!r} shares the vocabulary of {field.shares_with!r}"
        # The parts of times are fields, but their values are not those of any cell.
        owners = {each.name: each for each in self.columns if isinstance(each, Category)}
        if field.shares_with not in owners:
            others = [name for name in owners if name != field.name]
            raise UserError(
                f"{where}, which is not a categorical, multi-valued or history column; "
                + (f"those are {', '.join(others)}" if others else "there is no other")
            )
        owner = owners[field.shares_with]
        if owner.shares_with is not None:
            raise UserError(
                f"{where}, which shares that of {owner.shares_with!r}; name {owner.shares_with!r}"
            )
        for key in ("dtype", "size"):
            if getattr(field, key) != getattr(owner, key):
                raise UserError(
                    f"{where}, but has {key}={getattr(field, key)!r} where that has "
                    f"{getattr(owner, key)!r}"
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
            if field.slots != 1:
                raise UserError(
                    f"cross {cross.name!r}: column {name!r} holds several values in a row, which "
                    "cannot be crossed; cross columns of one value"
                )
            if isinstance(field, Numeric) and field.is_value_field:
                raise UserError(
                    f"cross {cross.name!r}: transform {field.transform!r} makes column {name!r} a "
                    "value, which cannot be crossed; make it buckets, by transform 'quantile' or "
                    "'log2_floor'"
                )

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns that carry features, in the order of the model's fields."""
        fields: list[Field] = []
        for column in self.columns:
            if isinstance(column, Field):
                fields.append(column)
            elif isinstance(column, Timestamp):
                fields += column.fields
        return tuple(fields)

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that features are made of, which every row must have."""
        return tuple(
            column
            for column in self.columns
            if isinstance(column, Field) or (isinstance(column, Timestamp) and column.parts)
        )

    @property
    def owners(self) -> tuple[int, ...]:
        """For each field, the index of the field whose vocabulary it reads; its own as a rule."""
        index = {field.name: number for number, field in enumerate(self.fields)}
        return tuple(
            number
            if isinstance(field, Numeric) or field.shares_with is None
            else index[field.shares_with]
            for number, field in enumerate(self.fields)
        )

    @property
    def field_slots(self) -> tuple[slice, ...]:
        """For each field, its slots in an encoded row."""
        ends = itertools.accumulate((field.slots for field in self.fields), initial=0)
        return tuple(itertools.starmap(slice, itertools.pairwise(ends)))

    @property
    def slot_names(self) -> tuple[str, ...]:
        """What each slot of an encoded row holds: the fields, then the crosses.

        The slots of a field of several values are ``NAME[0]``, ``NAME[1]`` and so on.
        """
        names: list[str] = []
        for field in self.fields:
            if (field.slots == 1 and not field.has_values) or isinstance(field, Numeric):
                names.append(field.name)
            else:
                names += [f"{field.name}[{place}]" for place in range(field.slots)]
        return (*names, *(cross.name for cross in self.crosses))

    @property
    def dense_size(self) -> int:
        """Numbers of all dense fields in an encoded row."""
        return sum(field.numbers for field in self.fields)

    @property
    def has_values(self) -> bool:
        """Whether any feature's value may differ from 1."""
        return any(field.has_values for field in self.fields)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The columns to predict, in the order of the tasks."""
        labels = [column for column in self.columns if isinstance(column, Label)]
        return tuple(sorted(labels, key=lambda label: label.rank))

    @property
    def label(self) -> Label:
        """The column to predict; of several the first."""
        return self.labels[0]

    def labels_named(self, names: Sequence[str]) -> tuple[Label, ...]:
        """The labels with some names, in the order of the tasks; the first one for no name.

        Raises:
          UserError: a name that is no label's.
        """
        known = [label.name for label in self.labels]
        for name in names:
            if name not in known:
                raise UserError(
                    f"data.labels: {name!r} is no label of the data set; it has {', '.join(known)}"
                )
        return tuple(label for label in self.labels if label.name in names) or self.labels[:1]

    @property
    def weight(self) -> str | None:
        """Name of the column of weights; None where all rows count alike."""
        return next(iter(self._weights), None)

    @property
    def group(self) -> str | None:
        """Name of the column of groups; None without any."""
        return next(iter(self._groups), None)

    @property
    def _weights(self) -> list[str]:
        return [column.name for column in self.columns if isinstance(column, Weight)]

    @property
    def _groups(self) -> list[str]:
        return [
            column.name
            for column in self.columns
            if isinstance(column, Group) or (isinstance(column, Categorical) and column.group)
        ]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that training needs beside the inputs: labels, weight and group."""
        labels = [label.name for label in self.labels]
        return tuple(dict.fromkeys([*labels, *self._weights, *self._groups]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        return {
            "text": to_data(self.text),
            "columns": [
                {"kind": type(column).__name__.lower(), **to_data(column)}
                for column in self.columns
            ],
            "crosses": to_data(self.crosses),
        }

    @classmethod
    def from_dict(cls, data: Any) -> "Schema":
        """Reads what ``to_dict`` wrote; an option that is left out has its default.

        Raises:
          UserError: a kind, an option or a value that does not exist, or an impossible schema.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("columns"), list):
            raise UserError("a schema is an object with a list of columns")
        unknown = sorted(set(data) - {"text", "columns", "crosses"})
        if unknown:
            raise UserError(f"a schema has text, columns and crosses, and no {unknown[0]!r}")
        columns = []
        for entry in data["columns"]:
            if not isinstance(entry, Mapping) or "kind" not in entry or "name" not in entry:
                raise UserError(f"column {entry!r} needs a kind and a name")
            options = dict(entry)
            kind = options.pop("kind")
            if not isinstance(kind, str) or kind not in _KINDS:
                raise UserError(f"column kind {kind!r} is unknown; use one of {sorted(_KINDS)}")
            columns.append(from_data(_KINDS[kind], options, f"column {entry['name']!r}"))
        text = from_data(TextFormat, data.get("text", {}), "text")
        crosses = data.get("crosses", [])
        if not isinstance(crosses, list):
            raise UserError(f"crosses={crosses!r} must be a list")
        crosses = tuple(from_data(Cross, each, "cross") for each in crosses)
        return cls(columns=tuple(columns), text=text, crosses=crosses)
