"""Typed rows of a source, with every bad row named by file, line, column and value."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from deepfm_jax.cells.text import missing_cells
from deepfm_jax.cells.typed import TypedCells
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.schema import Column, Schema

_REMEDY = "fix the row, or pass --max_bad_rows=N to skip and count up to N such rows"
KEPT_MESSAGES = 10
_SHOWN_CHARACTERS = 60


class Fault(NamedTuple):
    """What is wrong with a row.

    Attributes:
      column: The column whose cell is bad; empty for a row that could not be split into cells.
      value: The cell as it stands, or the bad element of one of several values; None where it is
        empty, or for such a row.
      reason: What is wrong with it.
    """

    column: str
    value: str | None
    reason: str

    @property
    def message(self) -> str:
        """The fault without its place."""
        if not self.column:
            return self.reason
        shown = "missing" if self.value is None else f"{self.value[:_SHOWN_CHARACTERS]!r}"
        return f"column {self.column}: value {shown} {self.reason}"


class RejectedRow(NamedTuple):
    """A row that was left out.

    Attributes:
      source: Name of the source, a path as a rule.
      unit: What positions count: ``"line"`` or ``"row"``.
      position: Of the row in the source, from 1; where it runs over lines, of its first.
      fault: What is wrong with it.
      text: The row as it stands where it could not be split, else its cells as far as they were
        read, with the delimiter of the schema between them.
    """

    source: str
    unit: str
    position: int
    fault: Fault
    text: str

    @property
    def message(self) -> str:
        """Where the row stands, what is wrong with it, and what to do."""
        return f"{self.source}, {self.unit} {self.position}, {self.fault.message}; {_REMEDY}"

    def beyond(self, max_bad_rows: int) -> UserError:
        """What is raised for the row that is one too many."""
        count = f" ({max_bad_rows + 1} bad rows so far)" if max_bad_rows else ""
        return UserError(self.message + count)


@dataclasses.dataclass
class RowReport:
    """Counts of the rows of a source, and what became of the rejected ones.

    Attributes:
      read: Rows met, ``kept + rejected``.
      kept: Good rows.
      rejected: Bad rows.
      first_errors: Messages about the first bad rows.
      on_rejected: Told of each bad row as it is met.
    """

    read: int = 0
    kept: int = 0
    rejected: int = 0
    first_errors: list[str] = dataclasses.field(default_factory=list)
    on_rejected: Callable[[RejectedRow], None] | None = None


class GoodRows(NamedTuple):
    """The same rows twice: every column as it was read, and the schema's columns typed.

    Attributes:
      raw: As they were read.
      typed: Of the schema.
      source: Name of the source they are from, a path as a rule.
    """

    raw: pa.Table
    typed: pa.Table
    source: str


class MalformedRow(NamedTuple):
    """A row that could not be split into cells: where it stands, why, and its text."""

    position: int
    reason: str
    text: str


@dataclasses.dataclass
class RowChecker:
    """Types the rows of one source and rejects the bad ones, up to a limit.

    Attributes:
      source: Name of the source in messages, a path as a rule.
      schema: What each column must hold.
      max_bad_rows: Bad rows tolerated; one more raises.
      report: Counts, filled while rows pass.
      unit: What positions count: ``"line"`` of a text file, or ``"row"``.
      line_of: Gives the line of a row by its number, where a row may run over several lines; None
        where positions are those of ``unit``. Called for bad rows alone, in file order.
    """

    source: str
    schema: Schema
    max_bad_rows: int
    report: RowReport
    unit: str = "line"
    line_of: Callable[[int], int] | None = None

    def good_rows(
        self,
        table: pa.Table,
        positions: np.ndarray,
        malformed: Sequence[MalformedRow] = (),
        suspects: Mapping[int, Fault] | None = None,
    ) -> GoodRows:
        """The good rows of ``table``, as they stand and typed.

        Args:
          table: Raw columns, text or not. Those of the schema's fields are read, and the label's
            where the table has it.
          positions: Position of each row in the source, from 1, [rows].
          malformed: Rows that could not be split into cells, all of them before or among these.
          suspects: Rows of ``table``, by index, that the reader has found fault with.

        Returns:
          Typed, categorical columns are string or int64, numeric ones float64 (null: missing),
          times int64 seconds since 1970 with their parts beside them, and labels float32. Where the
          table has several labels, a row may lack some of them (null), but not all.
          Columns of several values are lists (see ``cells.lists.typed_lists``), those of vectors
          lists of one size of float32.
          A field whose raw column is dictionary-encoded, as those of text files are where the cells
          themselves are not wanted, stays so: each distinct cell is then typed once.

        Raises:
          UserError: more bad rows than ``max_bad_rows``, the first beyond it in file order; or a
            column of a type that cannot be read as declared (Parquet).
        """
        columns: dict[str, pa.Array] = {}
        faults = dict(suspects or {})
        # Tables may have ten thousand columns, and look through all of them for a name.
        places = {name: place for place, name in enumerate(table.column_names)}
        allowed = self._missing_labels(table)
        for column in self.schema.columns:
            # A label, or a time that rows are split by, may be absent; fields may not.
            if not column.is_read or column.name not in places:
                continue
            raw = table.column(places[column.name]).combine_chunks()
            try:
                values, found = self._typed(column, raw, allowed.get(column.name))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(
                    f"{self.source}, column {column.name}: cells of type {raw.type} cannot be read "
                    f"as a {column.kind} column ({one_line(error)})"
                ) from None
            columns[column.name] = values
            columns |= column.derived(values)
            for row, bad in found.items():
                # A row with several faults is one bad row, told by its first column.
                faults.setdefault(row, Fault(column.name, *bad))
        self.report.read += table.num_rows + len(malformed)
        self._reject_all(table, positions, malformed, faults)
        typed = pa.table(columns)
        if faults:
            good = np.ones(table.num_rows, dtype=bool)
            good[list(faults)] = False
            table, typed = table.filter(pa.array(good)), typed.filter(pa.array(good))
        self.report.kept += typed.num_rows
        return GoodRows(raw=table, typed=typed, source=self.source)

    def _typed(self, column: Column, raw: pa.Array, allowed: np.ndarray | None) -> TypedCells:
        """Types the cells of a column; those that are allowed to be missing become null."""
        text = self.schema.text
        if allowed is None or not allowed.any():
            return column.type_cells(raw, text)
        given = np.flatnonzero(~allowed)
        values, found = column.type_cells(raw.take(pa.array(given)), text)
        places = pa.array(np.cumsum(~allowed) - 1, mask=allowed)
        return values.take(places), {int(given[row]): bad for row, bad in found.items()}

    def _missing_labels(self, table: pa.Table) -> dict[str, np.ndarray]:
        """By label, which rows lack it and have another label, and so are good rows."""
        names = [label.name for label in self.schema.labels if label.name in table.column_names]
        if len(names) < 2:
            return {}
        cells = [table.column(name).combine_chunks() for name in names]
        missing = np.stack([missing_cells(raw, self.schema.text) for raw in cells])
        missing &= ~missing.all(axis=0)
        return dict(zip(names, missing, strict=True))

    def _reject_all(self, table, positions, malformed, faults: Mapping[int, Fault]) -> None:
        rejected = [(row.position, Fault("", None, row.reason), row.text) for row in malformed]
        for row, fault in faults.items():
            cells = (column[row].as_py() for column in table.columns)
            text = self.schema.text.delimiter.join("" if c is None else str(c) for c in cells)
            rejected.append((int(positions[row]), fault, text))
        for position, fault, text in sorted(rejected, key=lambda each: each[0]):
            if self.line_of is not None:
                position = self.line_of(position)
            self._reject(RejectedRow(self.source, self.unit, position, fault, text))

    def _reject(self, row: RejectedRow) -> None:
        report = self.report
        report.rejected += 1
        if report.rejected > self.max_bad_rows:
            raise row.beyond(self.max_bad_rows)
        if len(report.first_errors) < KEPT_MESSAGES:
            report.first_errors.append(row.message)
        if report.on_rejected is not None:
            report.on_rejected(row)
