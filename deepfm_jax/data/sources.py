"""Raw files to clean, typed tables, a chunk at a time, so that memory does not grow with rows."""

import contextlib
import csv
import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from deepfm_jax.data.cells import GoodRows, RowChecker, RowReport
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Ignored, Schema

TEXT_EXTENSIONS = (".tsv", ".csv", ".txt", ".data")
_COMPRESSIONS = (".gz", ".zst")
_BLOCK_BYTES = 16 << 20
_PARQUET_ROWS = 1 << 16

__all__ = ["GoodRows", "RowReport", "read_rows", "read_tables", "text_columns", "text_extension"]


def text_extension(path: str | os.PathLike[str]) -> str | None:
    """``.tsv``, ``.csv``, ... of a text file, compressed or not; None of any other."""
    name = pathlib.Path(path)
    suffix = pathlib.Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix
    return suffix if suffix in TEXT_EXTENSIONS else None


def read_tables(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    max_bad_rows: int = 0,
    labelled: bool | None = True,
    report: RowReport | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[pa.Table]:
    """The rows of a file as typed tables (see ``RowChecker.good_rows``), in file order.

    Text files (``.tsv``, ``.csv``, ``.txt``, ``.data``, plain, ``.gz`` or ``.zst``) are read in the
    layout of ``schema.text``; ``.parquet`` by column names. An empty cell is a missing value. In
    messages a line is a record: a quoted cell may hold line breaks.

    Args:
      path: The file.
      schema: What its columns mean.
      max_bad_rows: Bad rows to leave out and count before giving up.
      labelled: Whether the label must be there; None takes it where it is.
      report: Counts, filled while reading.
      block_bytes: Bytes of text read at a time.

    Raises:
      UserError: the file is missing, empty, truncated or not text; a column is missing; or a bad
        row beyond ``max_bad_rows``, named by line, column and value.
    """
    for rows in _read(path, schema, max_bad_rows, labelled, report, block_bytes, every=False):
        yield rows.typed


def read_rows(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    max_bad_rows: int = 0,
    labelled: bool | None = None,
    report: RowReport | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[GoodRows]:
    """As ``read_tables``, with every column of the file as it stands beside the typed ones."""
    return _read(path, schema, max_bad_rows, labelled, report, block_bytes, every=True)


def _read(
    path, schema, max_bad_rows, labelled, report, block_bytes, *, every
) -> Iterator[GoodRows]:
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    checker = RowChecker(
        source=os.fspath(path),
        schema=schema,
        max_bad_rows=max_bad_rows,
        report=RowReport() if report is None else report,
        unit="row" if path.suffix == ".parquet" else "line",
    )
    if path.suffix == ".parquet":
        tables = _read_parquet(path, schema, labelled, checker, every)
    elif text_extension(path):
        tables = _read_text(path, schema, labelled, checker, block_bytes, every)
    else:
        raise UserError(
            f"{path}: unknown kind of file; use one of {', '.join(TEXT_EXTENSIONS)} "
            "(plain, .gz or .zst) or .parquet"
        )
    found = False
    try:
        for rows in tables:
            found = True
            if rows.typed.num_rows:
                yield rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {_cause(path, error)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read to its end ({error}); is it truncated?") from None
    if not found:
        raise UserError(f"{path}: the file holds no rows")


def text_columns(
    path: pathlib.Path, schema: Schema, labelled: bool | None
) -> tuple[list[str], str]:
    """The names of a text file's columns, in file order, and its first line.

    Raises:
      UserError: an empty file, a header without a needed column or with a name twice, or, without
        a header, another number of columns than the schema declares.
    """
    line = _first_line(path)
    cells = _split(line, schema)
    names = [column.name for column in schema.columns]
    if schema.text.header:
        _check_header(path, cells, schema, labelled)
        return cells, line
    unlabelled = [name for name in names if name != schema.label.name]
    # The first row decides, and later rows must agree with it; when it fits neither layout, it
    # is one of the bad rows.
    if labelled is not True and len(cells) == len(unlabelled):
        return unlabelled, line
    return names, line


def _read_text(path, schema, labelled, checker, block_bytes, every) -> Iterator[GoodRows]:
    names, _ = text_columns(path, schema, labelled)
    wanted = {column.name for column in schema.columns if not isinstance(column, Ignored)}
    include = [name for name in names if every or name in wanted]
    first_line = 2 if schema.text.header else 1
    lines = _Lines(first_line, len(names))
    for batch in _batches(lambda: _open_csv(path, schema, names, include, lines, block_bytes)):
        table = pa.Table.from_batches([batch])
        positions, malformed = lines.take(table.num_rows)
        yield checker.good_rows(table, positions, malformed)
    positions, malformed = lines.take(0)
    if malformed:
        empty = pa.table({name: pa.array([], pa.string()) for name in include})
        yield checker.good_rows(empty, positions, malformed)


class _Lines:
    """Which line each row stands on, when rows that do not split into cells are left out."""

    def __init__(self, first_line: int, width: int):
        self._next = first_line
        self._width = width
        self._offset = first_line - 1
        self._pending: list[tuple[int, str]] = []

    def malformed(self, row: pa_csv.InvalidRow) -> str:
        """Called by the reader for each row of another width."""
        shown = (row.text or "")[:60]
        self._pending.append(
            (
                row.number,
                f"{row.actual_columns} columns instead of {self._width} in {shown!r}",
            )
        )
        return "skip"

    def take(self, rows: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Lines of the next ``rows`` rows, and the malformed ones up to the last of them.

        The reader reads ahead, so malformed rows of later batches may be known already.
        """
        known = np.array([number for number, _ in self._pending], dtype=np.int64)
        span = np.arange(self._next, self._next + rows + len(known))
        positions = span[~np.isin(span, known)][:rows]
        if rows:
            self._next = int(positions[-1]) + 1
            ready = [fault for fault in self._pending if fault[0] < self._next]
            self._pending = [fault for fault in self._pending if fault[0] >= self._next]
        else:
            ready, self._pending = self._pending, []
        return positions, ready


def _batches(open_reader: Callable[[], pa_csv.CSVStreamingReader]) -> Iterator[pa.RecordBatch]:
    with _decoding_untold():
        reader = open_reader()
    while True:
        with _decoding_untold():
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextlib.contextmanager
def _decoding_untold() -> Iterator[None]:
    """Keeps stack traces of text that is not UTF-8 off stderr; ``_cause`` tells it by line.

    The reader decodes a malformed row before it calls the handler, and where that fails, it
    prints a trace, for nobody can catch it there, and only then raises.
    """
    kept = sys.unraisablehook

    def hook(unraisable):
        if not isinstance(unraisable.exc_value, UnicodeDecodeError):
            kept(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = kept


def _open_csv(path, schema, names, include, lines, block_bytes):
    text = schema.text
    return pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(
            # One thread: only then does the reader know the line of a malformed row.
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
            column_types={name: pa.string() for name in names},
            include_columns=include,
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _first_line(path: pathlib.Path) -> str:
    try:
        with pa.input_stream(os.fspath(path), compression="detect") as stream:
            head = stream.read(1 << 20)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({error}); is it truncated?") from None
    if not head:
        raise UserError(f"{path}: the file is empty")
    try:
        # A byte order mark, which spreadsheets write, is no part of the first name.
        return head.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line 1: not valid UTF-8 ({error.reason})") from None


def _split(line: str, schema: Schema) -> list[str]:
    if not schema.text.quoting:
        return line.split(schema.text.delimiter)
    return next(csv.reader([line], delimiter=schema.text.delimiter), [""])


def _check_header(path, cells: list[str], schema: Schema, labelled: bool | None) -> None:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise UserError(f"{path}, line 1: column {twice[0]!r} stands twice in the header")
    _check_names(f"{path}, line 1", cells, schema, labelled)


def _check_names(where: str, names: list[str], schema: Schema, labelled: bool | None) -> None:
    needed = [field.name for field in schema.fields]
    if labelled:
        needed.append(schema.label.name)
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(f"{where}: column {missing[0]!r} is missing; found {', '.join(names)}")


def _read_parquet(path, schema, labelled, checker, every) -> Iterator[GoodRows]:
    with pa_parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        _check_names(os.fspath(path), names, schema, labelled)
        declared = {c.name for c in schema.columns if not isinstance(c, Ignored)}
        wanted = [name for name in names if every or name in declared]
        row = 1
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch])
            yield checker.good_rows(table, np.arange(row, row + table.num_rows))
            row += table.num_rows


def _cause(path: pathlib.Path, error: pa.ArrowInvalid) -> str:
    """What a reader's error means; text that is not UTF-8 is looked for by line."""
    if path.suffix != ".parquet" and any(sign in str(error) for sign in ("UTF8", "Expected")):
        with pa.input_stream(os.fspath(path), compression="detect") as stream:
            for number, line in enumerate(io.BufferedReader(stream), start=1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return f"line {number}: not valid UTF-8; convert the file to UTF-8"
    if "Empty CSV file" in str(error):
        return "the file holds no rows"
    return " ".join(str(error).split())
