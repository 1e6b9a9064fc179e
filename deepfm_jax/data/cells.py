"""From raw cells to typed columns, with every bad cell named by file, line, column and value."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.errors import UserError
from deepfm_jax.schema import Categorical, Label, Numeric, Schema

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_INTEGER = r"^[+-]?\d{1,18}$"
_REMEDY = "fix the row, or pass --max_bad_rows=N to skip and count up to N such rows"
_KEPT_MESSAGES = 10
_SHOWN_CHARACTERS = 60


@dataclasses.dataclass
class RowReport:
    """Counts of the rows of a source, and the first messages about rejected ones."""

    read: int = 0
    kept: int = 0
    rejected: int = 0
    first_errors: list[str] = dataclasses.field(default_factory=list)


class GoodRows(NamedTuple):
    """The same rows twice: every column as it was read, and the schema's columns typed."""

    raw: pa.Table
    typed: pa.Table


@dataclasses.dataclass
class RowChecker:
    """Types the rows of one source and rejects the bad ones, up to a limit.

    Attributes:
      source: Name of the source in messages, a path as a rule.
      schema: What each column must hold.
      max_bad_rows: Bad rows tolerated; one more raises.
      report: Counts, filled while rows pass.
      unit: What positions count: ``"line"`` of a text file, or ``"row"``.
    """

    source: str
    schema: Schema
    max_bad_rows: int
    report: RowReport
    unit: str = "line"

    def good_rows(
        self,
        table: pa.Table,
        positions: np.ndarray,
        malformed: Sequence[tuple[int, str]] = (),
    ) -> GoodRows:
        """The good rows of ``table``, as they stand and typed.

        Args:
          table: Raw columns, text or not. Those of the schema's fields are read, and the label's
            where the table has it.
          positions: Position of each row in the source, from 1, [rows].
          malformed: Position and fault of rows that could not be split into cells, all of them
            before or among these rows.

        Returns:
          Typed, categorical columns are string or int64, numeric ones float64 (null: missing) and
          the label float32.

        Raises:
          UserError: more bad rows than ``max_bad_rows``, the first beyond it in file order; or a
            column of a type that cannot be read as declared (Parquet).
        """
        columns, faults = {}, {}
        for column in self.schema.columns:
            if not isinstance(column, Categorical | Numeric | Label):
                continue
            if isinstance(column, Label) and column.name not in table.column_names:
                continue
            raw = table[column.name].combine_chunks()
            try:
                values, bad, fault = _typed_column(raw, column)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                kind = type(column).__name__.lower()
                raise UserError(
                    f"{self.source}, column {column.name}: cells of type {raw.type} cannot be read "
                    f"as a {kind} column ({' '.join(str(error).split())})"
                ) from None
            columns[column.name] = values
            for row in np.flatnonzero(bad):
                value = raw[int(row)].as_py()
                shown = "missing" if value is None else f"{str(value)[:_SHOWN_CHARACTERS]!r}"
                # A row with several faults is one bad row, told by its first column.
                faults.setdefault(int(row), f"column {column.name}: value {shown} {fault}")
        self.report.read += table.num_rows + len(malformed)
        told = [(int(positions[row]), message) for row, message in faults.items()]
        for position, message in sorted([*told, *malformed]):
            self._reject(f"{self.source}, {self.unit} {position}, {message}; {_REMEDY}")
        typed = pa.table(columns)
        if faults:
            good = np.ones(table.num_rows, dtype=bool)
            good[list(faults)] = False
            table, typed = table.filter(pa.array(good)), typed.filter(pa.array(good))
        self.report.kept += typed.num_rows
        return GoodRows(raw=table, typed=typed)

    def _reject(self, message: str) -> None:
        self.report.rejected += 1
        if len(self.report.first_errors) < _KEPT_MESSAGES:
            self.report.first_errors.append(message)
        if self.report.rejected > self.max_bad_rows:
            beyond = f" ({self.report.rejected} bad rows so far)" if self.max_bad_rows else ""
            raise UserError(message + beyond)


def _typed_column(
    raw: pa.Array, column: Categorical | Numeric | Label
) -> tuple[pa.Array, np.ndarray, str]:
    """Typed values, which rows are bad, and what is wrong with those."""
    if isinstance(column, Categorical) and column.dtype == "string":
        text = _empty_to_null(raw.cast(pa.string()))
        return text, np.zeros(len(raw), dtype=bool), ""
    if isinstance(column, Categorical):
        values, bad = _integers(raw)
        return values, bad, "is not an integer"
    values, bad = _numbers(raw)
    if isinstance(column, Numeric):
        return values, bad, "is not a finite number"
    numbers = values.to_numpy(zero_copy_only=False)
    bad = ~((numbers == 0) | (numbers == 1))
    return values.cast(pa.float32()), bad, "is not a label, 0 or 1"


def _empty_to_null(text: pa.Array) -> pa.Array:
    empty = pc.fill_null(pc.equal(pc.utf8_length(text), 0), False)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text)


def _is_text(raw: pa.Array) -> bool:
    kind = raw.type.value_type if pa.types.is_dictionary(raw.type) else raw.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _trimmed(raw: pa.Array) -> pa.Array:
    """Text without surrounding spaces or a leading plus, empty cells null."""
    text = pc.utf8_trim_whitespace(raw.cast(pa.string()))
    return _empty_to_null(pc.replace_substring_regex(text, r"^\+", ""))


def _keep_matching(text: pa.Array, pattern: str) -> tuple[pa.Array, np.ndarray]:
    """The cells that match, the others null, and which those were."""
    matches = pc.fill_null(pc.match_substring_regex(text, pattern), True)
    kept = pc.if_else(matches, text, pa.scalar(None, pa.string()))
    return kept, ~matches.to_numpy(zero_copy_only=False)


def _numbers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    bad = np.zeros(len(raw), dtype=bool)
    if _is_text(raw):
        text = _trimmed(raw)
        try:
            values = text.cast(pa.float64())
        except pa.ArrowInvalid:
            text, bad = _keep_matching(text, _NUMBER)
            values = text.cast(pa.float64())
        # "nan" and "inf" are words in a text file; an empty cell is how a value is missing.
        bad = bad | ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
        return values, bad
    values = raw.cast(pa.float64())
    values = pc.if_else(pc.fill_null(pc.is_nan(values), False), None, values)
    return values, ~pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)


def _integers(raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
    bad = np.zeros(len(raw), dtype=bool)
    if _is_text(raw):
        text = _trimmed(raw)
        try:
            return text.cast(pa.int64()), bad
        except pa.ArrowInvalid:
            text, bad = _keep_matching(text, _INTEGER)
            return text.cast(pa.int64()), bad
    try:
        return raw.cast(pa.int64()), bad
    except pa.ArrowInvalid:
        numbers = pc.cast(raw, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        whole = np.isfinite(numbers) & (np.floor(numbers) == numbers) & (np.abs(numbers) < 2**53)
        bad = ~whole & ~np.isnan(numbers)
        return pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~whole), bad
