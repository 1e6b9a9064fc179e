"""Writes ``rejects.tsv``, the rows that ``prepare`` rejected, next to the prepared blocks."""

import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deepfm_jax.readers.row_checker import RejectedRow

REJECTS_FILE = "rejects.tsv"
_HEADER = ("split", "file", "line", "column", "value", "fault", "text")
# Cells of a bad row may contain anything, but each line must be one row, split at tabs.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


@contextmanager
def rejects_file(folder: pathlib.Path, split: str) -> Iterator[Callable[[RejectedRow], None]]:
    r"""Yields a function that adds a row of ``split`` to the file.

    The file is created with its first row, so a folder without the file has no rejected rows. Its
    columns are split, file, line (row of a Parquet file), column and value (both empty for a row
    that could not be split into cells), fault, and the row's text. Tabs, line breaks, NULs and
    backslashes in cells are written as ``\t``, ``\n``, ``\r``, ``\0`` and ``\\``.
    """
    stream = None

    def add(row: RejectedRow) -> None:
        nonlocal stream
        if stream is None:
            path = folder / REJECTS_FILE
            exists = path.exists()
            stream = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
            if not exists:
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
