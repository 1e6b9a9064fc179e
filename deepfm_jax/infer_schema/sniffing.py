"""Infers the layout of a text file from its first lines: delimiter, quotes, spaces, header."""

import csv
import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import SourcePath
from deepfm_jax.readers.text_files import split_line
from deepfm_jax.schema import TextFormat

_DELIMITERS = (",", "\t", ";", "|")
_SNIFFED_ROWS = 50
# Lines that these rows may span if quoted cells contain line breaks.
_SNIFFED_LINES = 1000
_ALIKE = 0.8
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_Rows: TypeAlias = list[list[str]]


def sniff(path: SourcePath, lines: Sequence[str]) -> tuple[TextFormat, _Rows]:
    """Returns the delimiter that splits the first rows into equally many cells, and these rows.

    Among several such delimiters, it prefers those for which the first row is as wide as most rows,
    because cells may contain another delimiter between values, but a header does not; and among
    these, the one that gives the most cells.

    Args:
      path: Path of the file, for messages.
      lines: Its first lines, without empty ones.

    Raises:
      UserError: there is no such delimiter.
    """
    best, split, fit = TextFormat(), None, (False, 1)
    for delimiter in _DELIMITERS:
        text, rows = _split(lines, delimiter)
        if rows is None or usual_width(rows) < 2:
            continue
        width = usual_width(rows)
        if (len(rows[0]) == width, width) > fit:
            best, split, fit = text, rows, (len(rows[0]) == width, width)
    if split is None:
        raise UserError(
            f"{path}: no delimiter splits its lines into cells; tried "
            f"{', '.join(map(repr, _DELIMITERS))}"
        )
    cells = [cell for row in split[1:] for cell in row]
    padded = sum(cell != cell.strip() for cell in cells if cell.strip())
    best = dataclasses.replace(best, trim=padded > 0.2 * max(len(cells), 1))
    return best, [[cell.strip() for cell in row] for row in split] if best.trim else split


def _split(lines: Sequence[str], delimiter: str) -> tuple[TextFormat, _Rows | None]:
    """Splits the first rows by a delimiter; the rows are None if they differ in width.

    The first interpretation that gives most rows the same width is used:

    1. Each line is a row, so that a line without its closing quote does not consume others.
    2. Quoted cells may span lines, if each closing quote ends a cell.
    3. Quotes are ordinary characters.
    4. Quoted cells may span lines, and quotes that cannot enclose a cell are characters.

    An interpretation that gives the first row another width than most is only a last resort.
    """
    first = None
    quoted, plain = TextFormat(delimiter), TextFormat(delimiter, quoting=False)
    ways = (
        (quoted, functools.partial(_rows_of_lines, lines, quoted)),
        (quoted, functools.partial(_rows_over_lines, lines, delimiter, strict=True)),
        (plain, functools.partial(_rows_of_lines, lines, plain)),
        (quoted, functools.partial(_rows_over_lines, lines, delimiter, strict=False)),
    )
    for text, split in ways:
        try:
            rows = split()
        except csv.Error:
            continue
        if rows and _alike(rows) and usual_width(rows) > 1:
            if len(rows[0]) == usual_width(rows):
                return text, rows
            first = first or (text, rows)
    return first or (plain, None)


def _rows_of_lines(lines: Sequence[str], text: TextFormat) -> _Rows:
    return [split_line(line, text) for line in lines[:_SNIFFED_ROWS]]


def _rows_over_lines(lines: Sequence[str], delimiter: str, *, strict: bool) -> _Rows:
    """Splits rows whose quoted cells may contain line breaks.

    Raises:
      csv.Error: ``strict`` is set and text follows the closing quote of a cell.
    """
    ended = (f"{line}\n" for line in lines[:_SNIFFED_LINES])
    rows: _Rows = []
    try:
        for row in itertools.islice(
            csv.reader(ended, delimiter=delimiter, strict=strict), _SNIFFED_ROWS
        ):
            rows.append(row)
    except csv.Error as error:
        # The last row may continue after the sample.
        if "end of data" not in str(error):
            raise
    return rows


def _alike(rows: _Rows) -> bool:
    widths = Counter(map(len, rows))
    return widths.most_common(1)[0][1] >= _ALIKE * widths.total()


def usual_width(rows: _Rows) -> int:
    """The most common number of cells in a row."""
    return Counter(map(len, rows)).most_common(1)[0][0]


def is_header(first: Sequence[str], rows: _Rows) -> bool:
    """Whether the first line names columns: no cell is a number, and few occur in later lines.

    A name may be empty, like that of the row numbers that pandas writes.
    """
    if any(NUMBER.fullmatch(cell) for cell in first) or not any(first):
        return False
    again = sum(
        any(position < len(row) and row[position] == cell for row in rows)
        for position, cell in enumerate(first)
        if cell
    )
    return again <= len(first) // 2
