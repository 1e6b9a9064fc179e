"""Types the rows of a source, and reports each bad row by file, line, column and value."""

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
      column: The column of the bad cell; empty for a row that could not be split into cells.
      value: The cell verbatim, or its bad element if it has several values; None if the cell is
        empty or the row could not be split.
      reason: What is wrong with the cell or row.
    """

    column: str
    value: str | None
    reason: str

    @property
    def message(self) -> str:
        """The message about the fault, without its position."""
        if not self.column:
            return self.reason
        shown = "missing" if self.value is None else f"{self.value[:_SHOWN_CHARACTERS]!r}"
        return f"column {self.column}: value {shown} {self.reason}"


class RejectedRow(NamedTuple):
    """A rejected row.

    Attributes:
      source: Name of the source, usually a path.
      unit: What positions count: ``"line"`` or ``"row"``.
      position: Position of the row in the source, from 1; the first line of a multi-line row.
      fault: What is wrong with the row.
      text: The row verbatim if it could not be split, otherwise the cells that were read, joined by
        the delimiter of the schema.
    """

    source: str
    unit: str
    position: int
    fault: Fault
    text: str

    @property
    def message(self) -> str:
        """Where the row is, what is wrong with it, and what to do."""
        return f"{self.source}, {self.unit} {self.position}, {self.fault.message}; {_REMEDY}"

    def beyond(self, max_bad_rows: int) -> UserError:
        """The error for the first row beyond the limit."""
        count = f" ({max_bad_rows + 1} bad rows so far)" if max_bad_rows else ""
        return UserError(self.message + count)


@dataclasses.dataclass
class RowReport:
    """Counts of the rows of a source, and messages about rejected rows.

    Attributes:
      read: Number of rows read, ``kept + rejected``.
      kept: Number of good rows.
      rejected: Number of bad rows.
      first_errors: Messages about the first bad rows.
      on_rejected: Called with each bad row as it is found.
    """

    read: int = 0
    kept: int = 0
    rejected: int = 0
    first_errors: list[str] = dataclasses.field(default_factory=list)
    on_rejected: Callable[[RejectedRow], None] | None = None


class GoodRows(NamedTuple):
    """The same rows twice: every column as read, and the schema's columns typed.

    Attributes:
      raw: All columns as read.
      typed: The typed columns of the schema.
      source: Name of the rows' source, usually a path.
    """

    raw: pa.Table
    typed: pa.Table
    source: str


class MalformedRow(NamedTuple):
    """A row that could not be split into cells: its position, the reason, and its text."""

    position: int
    reason: str
    text: str


@dataclasses.dataclass
class RowChecker:
    """Types the rows of one source and rejects the bad ones, up to a limit.

    Attributes:
      source: Name of the source in messages, usually a path.
      schema: What each column must contain.
      max_bad_rows: Number of bad rows to tolerate; one more raises.
      report: Counts, updated as rows are checked.
      unit: What positions count: ``"line"`` of a text file, or ``"row"``.
      line_of: Maps the number of a row to its line if rows may span several lines; None if
        positions already count ``unit``. Called for bad rows only, in file order.
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
        """The good rows of ``table``, raw and typed.

        Args:
          table: Raw columns, text or not. The columns of the schema's fields must be present;
            labels are read if present.
          positions: Position of each row in the source, from 1, [rows].
          malformed: Rows that could not be split into cells, before or among the rows of ``table``.
          suspects: Faults that the reader found, by row index in ``table``.

        Returns:
          Typed categorical columns are string or int64, numeric columns float64 (null if missing),
          times int64 seconds since 1970, followed by their parts, and labels float32. If the table
          has several labels, a row may lack some of them (null), but not all.
          Columns of several values are lists (see ``cells.lists.typed_lists``), and columns of
          vectors are fixed-size lists of float32.
          A dictionary-encoded raw column stays dictionary-encoded, so that each distinct cell is
          typed once. Text files are read this way unless the raw cells are needed.

        Raises:
          UserError: there are more than ``max_bad_rows`` bad rows, reported by the first one beyond
            the limit in file order; or the type of a column cannot be read as declared (Parquet).
        """
        columns: dict[str, pa.Array] = {}
        faults = dict(suspects or {})
        # A table may have ten thousand columns, and pyarrow searches for a name linearly.
        places = {name: place for place, name in enumerate(table.column_names)}
        allowed = self._missing_labels(table)
        for column in self.schema.columns:
            # Labels and the time that rows are split by may be absent; fields may not.
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
                # A row with several faults is one bad row, reported by its first bad column.
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
        """Types the cells of a column; cells that may be missing become null."""
        text = self.schema.text
        if allowed is None or not allowed.any():
            return column.type_cells(raw, text)
        given = np.flatnonzero(~allowed)
        values, found = column.type_cells(raw.take(pa.array(given)), text)
        places = pa.array(np.cumsum(~allowed) - 1, mask=allowed)
        return values.take(places), {int(given[row]): bad for row, bad in found.items()}

    def _missing_labels(self, table: pa.Table) -> dict[str, np.ndarray]:
        """For each label, a mask of the rows that lack it but have another label."""
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
