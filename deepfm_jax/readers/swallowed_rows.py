"""Finds rows swallowed by a cell whose closing quote is missing; they would be lost silently."""

import re

import pyarrow as pa

from deepfm_jax.cells.text import missing_cells, rows_with
from deepfm_jax.readers.row_checker import Fault
from deepfm_jax.schema import Schema

_LINE_BREAK = re.compile("\r\n|\n|\r")


def swallowed_rows(table: pa.Table, schema: Schema, names: list[str]) -> dict[int, Fault]:
    """Faults of the rows with a cell that spans whole rows of the file, by row index in the table.

    A line break inside a quoted cell is usually text. A line between two of them counts as a row if
    it splits into as many cells as a row has. The first and the last line of the cell count as
    rows if each, with the cells before or after it, forms a complete row with readable labels, of
    which one of several may be missing.

    Args:
      table: Raw cells of columns of the file.
      schema: Schema of the rows.
      names: Names of all columns, in file order.
    """
    faults: dict[int, Fault] = {}
    # A line of text often contains one delimiter, and then looks like a row of two cells.
    if not schema.text.quoting or len(names) < 3:
        return faults
    places = {name: place for place, name in enumerate(names)}
    for name, column in zip(table.column_names, table.columns, strict=True):
        for row in rows_with(column.combine_chunks(), "\n").tolist():
            cell = column[row].as_py()
            lines = [line.split(schema.text.delimiter) for line in _LINE_BREAK.split(cell)]
            inner = any(len(line) == len(names) for line in lines[1:-1])
            if inner or _are_rows(lines[0], lines[-1], places[name], schema, names):
                reason = "spans whole rows (is a quote missing?)"
                faults.setdefault(row, Fault(name, cell, reason))
    return faults


def _are_rows(
    first: list[str], last: list[str], place: int, schema: Schema, names: list[str]
) -> bool:
    """Whether the first line of a cell completes one row, and its last line begins another.

    Args:
      first: Cells of the first line, the first of them at ``place``.
      last: Cells of the last line, the last of them at ``place``.
      place: Position of the cell in its row, from 0.
      schema: Schema of the rows.
      names: Names of all columns, in file order.
    """
    if len(first) != len(names) - place or len(last) != place + 1:
        return False
    labels = [label for label in schema.labels if label.name in names]
    for label in labels:
        at = names.index(label.name)
        cells = [*first[at - place : at - place + 1]] if at >= place else []
        cells += [*last[at : at + 1]]
        raw = pa.array(cells, pa.string())
        if len(labels) > 1:  # A row may lack some of them.
            raw = raw.filter(pa.array(~missing_cells(raw, schema.text)))
        _, bad = label.type_cells(raw, schema.text)
        if bad:
            return False
    return True
