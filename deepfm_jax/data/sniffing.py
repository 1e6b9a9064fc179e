"""The layout of an unknown text file, from its first lines: delimiter, quotes, spaces, header."""

import csv
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from deepfm_jax.data.paths import SourcePath
from deepfm_jax.data.text_files import split_line
from deepfm_jax.errors import UserError
from deepfm_jax.schema import TextFormat

_DELIMITERS = (",", "\t", ";", "|")
_SNIFFED_ROWS = 50
# Lines that those rows may take where quoted cells run over several.
_SNIFFED_LINES = 1000
_ALIKE = 0.8
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_Rows: TypeAlias = list[list[str]]


def sniff(path: SourcePath, lines: Sequence[str]) -> tuple[TextFormat, _Rows]:
    """The delimiter that splits the first rows into most cells, equally many, and those rows.

    Args:
      path: Of the file, for messages.
      lines: Its first lines, without empty ones.

    Raises:
      UserError: no delimiter does.
    """
    best, split, width = TextFormat(), None, 1
    for delimiter in _DELIMITERS:
        text, rows = _split(lines, delimiter)
        if rows is not None and usual_width(rows) > width:
            best, split, width = text, rows, usual_width(rows)
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
    """The first rows by a delimiter, None where they differ in width.

    Each line is a row of its own where that gives cells, so that one without its last quote takes
    no others with it; or else a quoted cell may run over lines. Quotes are marks of the text itself
    only where they cannot be quotes.
    """
    text = TextFormat(delimiter)
    try:
        rows = [split_line(line, text) for line in lines[:_SNIFFED_ROWS]]
        if _alike(rows) and usual_width(rows) > 1:
            return text, rows
        rows = _rows_over_lines(lines, delimiter)
        if _alike(rows):
            return text, rows
    except csv.Error:
        pass
    text = TextFormat(delimiter, quoting=False)
    rows = [split_line(line, text) for line in lines[:_SNIFFED_ROWS]]
    return text, rows if _alike(rows) else None


def _rows_over_lines(lines: Sequence[str], delimiter: str) -> _Rows:
    ended = (f"{line}\n" for line in lines[:_SNIFFED_LINES])
    return list(itertools.islice(csv.reader(ended, delimiter=delimiter), _SNIFFED_ROWS))


def _alike(rows: _Rows) -> bool:
    widths = Counter(map(len, rows))
    return widths.most_common(1)[0][1] >= _ALIKE * widths.total()


def usual_width(rows: _Rows) -> int:
    """How many cells most rows have."""
    return Counter(map(len, rows)).most_common(1)[0][0]


def is_header(first: Sequence[str], rows: _Rows) -> bool:
    """Whether the first line names columns: it has no number, and few cells of the lines below.

    A name may be empty, as that of the row numbers which pandas writes.
    """
    if any(NUMBER.fullmatch(cell) for cell in first) or not any(first):
        return False
    again = sum(
        any(position < len(row) and row[position] == cell for row in rows)
        for position, cell in enumerate(first)
        if cell
    )
    return again <= len(first) // 2
