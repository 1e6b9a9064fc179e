"""The schema of a click log: declared once, stored with the data, checkpoints and models."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.columns.column import Column, Field, Target
from deepfm_jax.columns.label import Label
from deepfm_jax.columns.registry import KINDS
from deepfm_jax.dataclass_data import from_data, to_data
from deepfm_jax.errors import UserError
from deepfm_jax.schema.cross import Cross

_PLAIN = TextFormat()


@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of a data set in file order, the layout of its text files, and its crosses.

    Raises:
      UserError: a name is declared twice; there is no field or no label; there are two weights or
        two groups; a cross is declared twice, or uses a column that cannot be crossed; or a column
        shares the vocabulary of one that has none.
    """

    columns: tuple[Column, ...]
    text: TextFormat = _PLAIN
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self):
        names = [column.name for column in self.columns]
        # A field that is derived from a column has its own name.
        for column in self.columns:
            names += [field.name for field in column.fields if field != column]
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
        for kind, columns in (("weight", self._names("weight")), ("group", self._names("group"))):
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
        if field.owner is None:
            return
        where = f"column {field.name!r} shares the vocabulary of {field.owner!r}"
        # The parts of times are fields, but no cell holds their values.
        declared = [each for column in self.columns for each in column.fields if each == column]
        owners = {each.name: each for each in declared if each.is_category}
        if field.owner not in owners:
            others = [name for name in owners if name != field.name]
            raise UserError(
                f"{where}, which is not a categorical, multi-valued or history column; "
                + (f"use one of {', '.join(others)}" if others else "there is no other")
            )
        owner = owners[field.owner]
        if owner.owner is not None:
            raise UserError(f"{where}, which shares that of {owner.owner!r}; name {owner.owner!r}")
        theirs = owner.id_options
        for key, value in field.id_options.items():
            if value != theirs.get(key):
                raise UserError(
                    f"{where}, but has {key}={value!r} where that has {theirs.get(key)!r}"
                )

    def _check_columns(self, cross: Cross) -> None:
        fields = {field.name: field for field in self.fields}
        for name in cross.columns:
            if name not in fields:
                raise UserError(
                    f"cross {cross.name!r}: {name!r} is not a categorical or numeric column; "
                    f"use one of {', '.join(fields)}"
                )
            fault = fields[name].cross_fault
            if fault is not None:
                raise UserError(f"cross {cross.name!r}: {fault}")

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns that carry features, in the order of the model's fields."""
        return tuple(field for column in self.columns for field in column.fields)

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns that become fields, which every row must have."""
        return tuple(column for column in self.columns if column.fields)

    @property
    def owners(self) -> tuple[int, ...]:
        """For each field, the index of the field whose vocabulary it uses; usually its own."""
        index = {field.name: number for number, field in enumerate(self.fields)}
        return tuple(
            number if field.owner is None else index[field.owner]
            for number, field in enumerate(self.fields)
        )

    @property
    def field_slots(self) -> tuple[slice, ...]:
        """For each field, its slots in an encoded row."""
        ends = itertools.accumulate((field.slots for field in self.fields), initial=0)
        return tuple(itertools.starmap(slice, itertools.pairwise(ends)))

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The name of each slot of an encoded row: the fields, then the crosses.

        The slots of a field of several values are ``NAME[0]``, ``NAME[1]`` and so on.
        """
        names = itertools.chain.from_iterable(field.slot_names for field in self.fields)
        return (*names, *(cross.name for cross in self.crosses))

    @property
    def dense_size(self) -> int:
        """Total length of the dense fields of an encoded row."""
        return sum(field.numbers for field in self.fields)

    @property
    def has_values(self) -> bool:
        """Whether any feature's value may differ from 1."""
        return any(field.has_values for field in self.fields)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The columns to predict, in the order of the tasks."""
        # Every column with the target "label" is a ``Label``.
        labels = cast("list[Label]", self._of_target("label"))
        return tuple(sorted(labels, key=lambda label: label.rank))

    @property
    def label(self) -> Label:
        """The column to predict, or the first of several."""
        return self.labels[0]

    def labels_named(self, names: Sequence[str]) -> tuple[Label, ...]:
        """The labels with the given names, in the order of the tasks; the first if there are none.

        Raises:
          UserError: a name is not that of a label.
        """
        known = [label.name for label in self.labels]
        for name in names:
            if name not in known:
                raise UserError(
                    f"data.labels: {name!r} is not a label of the data set; it has "
                    f"{', '.join(known)}"
                )
        return tuple(label for label in self.labels if label.name in names) or self.labels[:1]

    @property
    def weight(self) -> str | None:
        """Name of the column of weights; None if all rows count equally."""
        return next(iter(self._names("weight")), None)

    @property
    def group(self) -> str | None:
        """Name of the column of groups; None if there is none."""
        return next(iter(self._names("group")), None)

    def _of_target(self, target: Target) -> list[Column]:
        return [column for column in self.columns if column.target == target]

    def _names(self, target: Target) -> list[str]:
        return [column.name for column in self._of_target(target)]

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that training needs besides the inputs: labels, weight and group."""
        labels = [label.name for label in self.labels]
        return tuple(dict.fromkeys([*labels, *self._names("weight"), *self._names("group")]))

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON; ``from_dict`` reads it back."""
        return {
            "text": to_data(self.text),
            "columns": [{"kind": column.kind, **to_data(column)} for column in self.columns],
            "crosses": to_data(self.crosses),
        }

    @classmethod
    def from_dict(cls, data: Any) -> "Schema":
        """Reads the output of ``to_dict``; omitted options have their defaults.

        Raises:
          UserError: a kind, an option or a value does not exist, or the schema is invalid.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("columns"), list):
            raise UserError("a schema is an object with a list of columns")
        unknown = sorted(set(data) - {"text", "columns", "crosses"})
        if unknown:
            raise UserError(
                f"a schema has only text, columns and crosses, but there is {unknown[0]!r}"
            )
        columns = []
        for entry in data["columns"]:
            if not isinstance(entry, Mapping) or "kind" not in entry or "name" not in entry:
                raise UserError(f"column {entry!r} needs a kind and a name")
            options = dict(entry)
            kind = options.pop("kind")
            if not isinstance(kind, str) or kind not in KINDS:
                raise UserError(f"column kind {kind!r} is unknown; use one of {sorted(KINDS)}")
            columns.append(from_data(KINDS[kind], options, f"column {entry['name']!r}"))
        text = from_data(TextFormat, data.get("text", {}), "text")
        crosses = data.get("crosses", [])
        if not isinstance(crosses, list):
            raise UserError(f"crosses={crosses!r} must be a list")
        crosses = tuple(from_data(Cross, each, "cross") for each in crosses)
        return cls(columns=tuple(columns), text=text, crosses=crosses)
