"""Finds the line on which a row of a text file begins when quoted cells contain line breaks."""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import SourcePath, open_text
from deepfm_jax.schema import TextFormat

_BLOCK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE, _BREAK = b'"\n'


class LineNumbers:
    """Looks up the lines on which rows begin, in file order.

    Callers look up bad rows only, so the file is read a second time up to its last bad row, and a
    file of good rows is not read again. Rows are split as the CSV reader splits them: a quote opens
    a cell only at the start of the cell, and a line break in a quoted cell does not end the row.
    """

    def __init__(self, path: SourcePath, text: TextFormat):
        self._path = path
        self._blocks = _first_lines(path, text)
        self._row = 1
        self._lines = np.zeros(0, np.int64)

    def line(self, row: int) -> int:
        """The line of a row.

        Args:
          row: Its number, counted from 1 with the header and empty lines; must not decrease between
            calls.

        Raises:
          UserError: the file no longer has that many rows.
        """
        while row >= self._row + len(self._lines):
            following = next(self._blocks, None)
            if following is None:
                raise UserError(f"{self._path}: the file changed while it was being read")
            self._row, self._lines = self._row + len(self._lines), following
        return int(self._lines[row - self._row])


def _first_lines(path: SourcePath, text: TextFormat) -> Iterator[np.ndarray]:
    """The line on which each row begins, block by block."""
    line, rest, header = 1, b"", text.header
    with open_text(path) as stream:
        for block in _with_plain_breaks(stream):
            rest += block
            content = np.frombuffer(rest, np.uint8)
            breaks = np.flatnonzero(content == _BREAK)
            if header and len(breaks):  # The header is the first line, whatever it contains.
                yield np.array([1])
                line, rest, header = 2, rest[breaks[0] + 1 :], False
                content, breaks = content[breaks[0] + 1 :], breaks[1:] - breaks[0] - 1
            ends = np.flatnonzero(~_quoted(rest, content, breaks, text.delimiter))
            if not header and len(ends):
                yield line + np.concatenate([[0], ends[:-1] + 1])
                line, rest = line + int(ends[-1]) + 1, rest[breaks[ends[-1]] + 1 :]
    if rest:
        yield np.array([line])


def _with_plain_breaks(stream: pa.NativeFile) -> Iterator[bytes]:
    r"""The bytes of a file, with each ``\r\n`` or ``\r`` replaced by ``\n``."""
    held = stream.read(len(_BYTE_ORDER_MARK)).removeprefix(_BYTE_ORDER_MARK)
    while block := stream.read(_BLOCK_BYTES):
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""  # A \n may follow.
        yield block.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield held.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _quoted(text: bytes, content: np.ndarray, breaks: np.ndarray, delimiter: str) -> np.ndarray:
    """A mask of the line breaks in quoted cells, [breaks]; the text must start with a row."""
    quotes = np.flatnonzero(content == _QUOTE)
    opening = quotes[::2]
    before = np.where(opening > 0, content[opening - 1], _BREAK)
    # Every other quote opens a cell, or is the second of an escaped pair.
    if np.isin(before, (ord(delimiter), _BREAK, _QUOTE)).all():
        return np.searchsorted(quotes, breaks) % 2 == 1
    # Some quotes are inside unquoted cells.
    end = re.escape(delimiter.encode())
    cells = re.finditer(rb'(?<![^%b\n])"[^"]*(?:""[^"]*)*(?:"|\Z)' % end, text)
    starts, stops = np.array([cell.span() for cell in cells], np.int64).reshape(-1, 2).T
    cell = np.searchsorted(starts, breaks) - 1
    return (cell >= 0) & (breaks < np.append(stops, 0)[cell])
