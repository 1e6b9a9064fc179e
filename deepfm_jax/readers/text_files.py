"""Reads text files in blocks; each row is typed, or rejected with its line."""

import contextlib
import csv
import dataclasses
import functools
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.display import shown, shown_names
from deepfm_jax.readers.line_numbers import LineNumbers
from deepfm_jax.readers.paths import SourcePath, extension, open_text
from deepfm_jax.readers.read_ahead import read_ahead
from deepfm_jax.readers.row_checker import GoodRows, MalformedRow, RowChecker
from deepfm_jax.readers.swallowed_rows import swallowed_rows
from deepfm_jax.schema import Schema, TextFormat

EXTENSIONS = (".tsv", ".csv", ".txt", ".data", ".test", ".dat")
_FIRST_LINE_BYTES = 1 << 20
_SHOWN_CHARACTERS = 60


def text_extension(path: str | os.PathLike[str]) -> str | None:
    """The extension (``.tsv``, ``.csv``) of a text file, compressed or not; else None."""
    suffix = extension(path)
    return suffix if suffix in EXTENSIONS else None


def text_columns(path: SourcePath, schema: Schema, labelled: bool | None) -> list[str]:
    """The names of a text file's columns, in file order.

    Raises:
      UserError: the file is empty, or its header lacks a required column or repeats a name.
    """
    line = first_line(path)
    cells = split_line(line, schema.text)
    names = [column.name for column in schema.columns]
    if schema.text.header:
        if not line.strip():
            raise UserError(no_header(path))
        check_names(f"{path}, line 1", cells, schema, labelled)
        return cells
    labels = [label.name for label in schema.labels]
    unlabelled = [name for name in names if name not in labels]
    # The first row decides, and later rows must agree with it. If it fits neither layout, it counts
    # as a bad row.
    if labelled is not True and len(cells) == len(unlabelled):
        return unlabelled
    return names


def no_header(path: SourcePath) -> str:
    """The message for a file whose first line is empty, and so has no column names."""
    return (
        f"{path}, line 1 is empty: the names of the columns, or the first row, must come first; "
        "remove the empty lines before them"
    )


def check_names(where: str, names: list[str], schema: Schema, labelled: bool | None) -> None:
    """Checks that all required columns are present, and that no name is repeated.

    Raises:
      UserError: a column is missing, or a name is repeated.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{where}: column {shown(repeated[0])} appears twice in the header")
    required = [column.name for column in schema.inputs]
    if labelled:
        required += schema.targets
    present = set(names)
    missing = [name for name in required if name not in present]
    if missing:
        found = shown_names(names, missing[0])
        raise UserError(f"{where}: column {missing[0]!r} is missing; found {found}")


def first_line(path: SourcePath) -> str:
    """The first line of a text file, without its line break.

    Raises:
      UserError: the file is empty, cannot be read or is not text.
    """
    try:
        with open_text(path) as stream:
            head = stream.read(_FIRST_LINE_BYTES)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); is it truncated?") from None
    if not head:
        raise UserError(f"{path}: the file is empty")
    # Old Mac files end lines with a carriage return only.
    line = head.split(b"\n", 1)[0].split(b"\r", 1)[0]
    try:
        # The byte order mark that spreadsheets write is not part of the first name.
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line 1: not valid UTF-8 ({error.reason})") from None
    if "\0" in text:
        raise UserError(f"{path}, line 1: holds NUL bytes; convert the file to UTF-8")
    return text


def split_line(line: str, text: TextFormat) -> list[str]:
    """The cells of a line."""
    if text.quoting:
        # The limit is global to the process; a cell may be as long as its line.
        csv.field_size_limit(max(csv.field_size_limit(), len(line)))
        cells = next(csv.reader([line], delimiter=text.delimiter), [""])
    else:
        cells = line.split(text.delimiter)
    return [cell.strip() for cell in cells] if text.trim else cells


def read_text(
    path: SourcePath,
    schema: Schema,
    labelled: bool | None,
    checker: RowChecker,
    block_bytes: int,
    every: bool,
) -> Iterator[GoodRows]:
    """Yields the rows of a text file; see ``sources.read_rows``.

    Args:
      path: The file.
      schema: Schema of the rows.
      labelled: Whether the label is required; None reads it if present.
      checker: Types the rows.
      block_bytes: Bytes read at a time; no row may be longer.
      every: Whether columns that the schema ignores are read too.

    Raises:
      UserError: see ``sources.read_tables``.
    """
    names = text_columns(path, schema, labelled)
    wanted = {column.name for column in schema.columns if column.is_read}
    include = [name for name in names if every or name in wanted]
    # If the raw cells are not needed, typing each distinct cell once is several times as fast.
    kind = pa.string() if every else pa.dictionary(pa.int32(), pa.string())
    lines = _Lines(2 if schema.text.header else 1, len(names))
    if schema.text.quoting:  # Otherwise each row is one line.
        checker = dataclasses.replace(checker, line_of=LineNumbers(path, schema.text).line)
    open_reader = functools.partial(
        _open_csv, path, schema, names, include, lines, block_bytes, kind
    )
    try:
        with contextlib.closing(read_ahead(_batches(open_reader, lines))) as batches:
            for table, positions, malformed in batches:
                suspects = swallowed_rows(table, schema, names)
                yield checker.good_rows(table, positions, malformed, suspects)
    except pa.ArrowInvalid as error:
        if no_rows(error):
            return
        raise UserError(f"{path}{cause(path, error, schema.text, block_bytes)}") from None
    positions, malformed = lines.take(0)
    if malformed:
        empty = pa.table({name: pa.array([], pa.string()) for name in include})
        yield checker.good_rows(empty, positions, malformed)


class _Lines:
    """Tracks the number of each row in the file, although the CSV reader skips malformed rows."""

    def __init__(self, first: int, width: int):
        self._next = first
        self._width = width
        self._pending: list[MalformedRow] = []

    def malformed(self, row: pa_csv.InvalidRow) -> str:
        """The CSV reader's handler of rows with the wrong number of columns."""
        text = row.text or ""
        reason = (
            f"{row.actual_columns} columns instead of {self._width} in {text[:_SHOWN_CHARACTERS]!r}"
        )
        self._pending.append(MalformedRow(row.number, reason, text))
        return "skip"

    def take(self, rows: int) -> tuple[np.ndarray, list[MalformedRow]]:
        """The numbers of the next ``rows`` rows, and the malformed rows before the last of them.

        The reader reads ahead, so malformed rows of later batches may already be known.
        """
        known = np.array([row.position for row in self._pending], dtype=np.int64)
        span = np.arange(self._next, self._next + rows + len(known))
        positions = span[~np.isin(span, known)][:rows]
        if rows:
            self._next = int(positions[-1]) + 1
            ready = [row for row in self._pending if row.position < self._next]
            self._pending = [row for row in self._pending if row.position >= self._next]
        else:
            ready, self._pending = self._pending, []
        return positions, ready


def _batches(
    open_reader: Callable[[], pa_csv.CSVStreamingReader], lines: _Lines
) -> Iterator[tuple[pa.Table, np.ndarray, list[MalformedRow]]]:
    """Yields rows, their numbers, and the malformed rows before the last of them."""
    with _silence_decode_errors(), open_reader() as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch]), *lines.take(batch.num_rows)


@contextlib.contextmanager
def _silence_decode_errors() -> Iterator[None]:
    """Keeps stack traces of text that is not UTF-8 off stderr; ``cause`` reports it by line.

    The reader decodes a malformed row before it calls the handler. If decoding fails, the reader
    prints a trace, because nothing can catch the error there, and raises afterwards. As it reads
    ahead, this may happen at any time until it is closed.
    """
    previous = sys.unraisablehook

    def hook(unraisable):
        if not isinstance(unraisable.exc_value, UnicodeDecodeError):
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        # Another reader may have installed its own hook on top, which still calls this one.
        if sys.unraisablehook is hook:
            sys.unraisablehook = previous


def _open_csv(path, schema, names, include, lines, block_bytes, kind):
    text = schema.text
    return pa_csv.open_csv(
        # Not closed here: the reader reads ahead in a thread, and releases the stream on its own.
        open_text(path),
        read_options=pa_csv.ReadOptions(
            # The reader knows the line of a malformed row only if it uses one thread.
            use_threads=False,
            block_size=block_bytes,
            column_names=names,
            skip_rows=1 if text.header else 0,
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=text.delimiter,
            quote_char='"' if text.quoting else False,
            double_quote=text.quoting,
            newlines_in_values=text.quoting,
            ignore_empty_lines=False,
            invalid_row_handler=lines.malformed,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, kind),
            include_columns=include,
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def no_rows(error: pa.ArrowInvalid) -> bool:
    """Whether a CSV reader's error means that the file ends after its header, or before it."""
    return "Empty CSV file" in str(error) or "Could not skip initial" in str(error)


def cause(path: SourcePath, error: pa.ArrowInvalid, text: TextFormat, block_bytes: int) -> str:
    """The cause of a CSV reader's error, with its line if found, as a suffix to the path."""
    message = str(error)
    straddling = "straddling" in message
    if straddling or "UTF8" in message or "Expected" in message:
        start, length, quotes = 1, 0, 0
        with open_text(path) as stream:
            for number, line in enumerate(io.BufferedReader(stream), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return f", line {number}: not valid UTF-8; convert the file to UTF-8"
                length, quotes = length + len(line), quotes + line.count(b'"')
                if straddling and length > block_bytes:
                    return f", line {start}: the row is longer than {block_bytes:,} bytes" + (
                        "; is a quote missing?" if text.quoting and quotes else ""
                    )
                if not text.quoting or quotes % 2 == 0:
                    start, length, quotes = number + 1, 0, 0
    return f": {one_line(error)}"
