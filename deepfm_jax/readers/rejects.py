"""``rejects.tsv``: every row that ``prepare`` left out, beside the blocks of those it kept."""

import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepfm_jax.readers.row_checker import RejectedRow

REJECTS_FILE = "rejects.tsv"
_HEADER = ("split", "file", "line", "column", "value", "fault", "text")
# Cells of a bad row may hold anything; a line of the file is one row and a tab ends a cell.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


@contextmanager
def rejects_file(folder: pathlib.Path, split: str) -> Iterator[Callable[[RejectedRow], None]]:
    r"""Gives a function that adds a row of ``split`` to the file.

    The file is made with its first row, so that a folder without one has rejected nothing. Columns:
    split, file, line (row of a Parquet file), column and value (both empty for a row that could
    not be split into cells), fault, and the row's text. Tabs, line breaks, NULs and backslashes of
    the cells are written as ``\t``, ``\n``, ``\r``, ``\0`` and ``\\``.
    """
    stream = None

    def add(row: RejectedRow) -> None:
        nonlocal stream
        if stream is None:
            path = folder / REJECTS_FILE
            started = path.exists()
            stream = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
            if not started:
                stream.write("\t".join(_HEADER) + "\n")
        fault = row.fault
        cells = (split, row.source, row.position, fault.column, fault.value or "", fault.reason)
        written = (str(cell).translate(_ESCAPES) for cell in (*cells, row.text))
        stream.write("\t".join(written) + "\n")

    try:
        yield add
    finally:
        if stream is not None:
            stream.close()
