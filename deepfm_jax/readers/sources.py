"""Reads raw files into clean, typed tables in chunks, so memory does not grow with their rows."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from deepfm_jax.cells.lists import is_list
from deepfm_jax.cells.text import is_text
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.libsvm_files import FEATURE_EXTENSIONS, feature_extension, read_features
from deepfm_jax.readers.paths import SourcePath, find_files, open_random
from deepfm_jax.readers.row_checker import GoodRows, RowChecker, RowReport
from deepfm_jax.readers.text_files import (
    EXTENSIONS,
    check_names,
    read_text,
    text_columns,
    text_extension,
)
from deepfm_jax.schema import Schema

_BLOCK_BYTES = 4 << 20
_PARQUET_ROWS = 1 << 16

# A file, a pattern that matches several, or a sequence of either.
Files: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

__all__ = [
    "Files",
    "GoodRows",
    "RowReport",
    "check_files",
    "check_not_empty",
    "find_files",
    "read_file",
    "read_rows",
    "read_tables",
    "text_extension",
    "typed_table",
]


def read_tables(
    path: Files,
    schema: Schema,
    *,
    max_bad_rows: int = 0,
    labelled: bool | None = True,
    report: RowReport | None = None,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[pa.Table]:
    """Yields the rows of files as typed tables (see ``RowChecker.good_rows``), in file order.

    Text files (``.tsv``, ``.csv``, ``.txt``, ``.data``, plain, ``.gz`` or ``.zst``) are read in the
    layout of ``schema.text``, ``.parquet`` files by column names, and ``.libsvm``, ``.libfm``,
    ``.svm``, ``.libffm`` and ``.ffm`` files by ``libsvm_files.read_features``. An empty cell is a
    missing value. Messages name a row by its first line, as quoted cells may contain line breaks.

    Args:
      path: A file, or a pattern of several files that form one source (see ``paths.find_files``),
        on disk or behind a URL. Or a sequence of files, which are read in order; files with unknown
        extensions are read as text.
      schema: What the columns mean.
      max_bad_rows: Number of bad rows to skip and count before raising.
      labelled: Whether the label is required; None reads it if present.
      report: Counts, updated while reading.
      block_bytes: Bytes of text read at a time; no row may be longer.

    Raises:
      UserError: a file is missing, empty, truncated or not text; a column is missing, or its type
        differs from that in the first file; or there are more than ``max_bad_rows`` bad rows. The
        message names line, column and value.
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
    """Like ``read_tables``, but also yields every raw column of the file."""
    return _read(path, schema, max_bad_rows, labelled, report, block_bytes, every=True)


def typed_table(
    table: Any,
    schema: Schema,
    *,
    max_bad_rows: int = 0,
    labelled: bool | None = None,
    report: RowReport | None = None,
) -> pa.Table:
    """The rows of an in-memory table, typed as ``read_tables`` types the rows of a file.

    Args:
      table: A pyarrow, pandas or polars table, or anything else that pyarrow reads: an object with
        ``__arrow_c_stream__``, or a dict of columns.
      schema: What the columns mean; columns are found by name, in any order.
      max_bad_rows: Number of bad rows to skip and count before raising.
      labelled: Whether the label is required; None reads it if present.
      report: Counts, updated while reading.

    Raises:
      UserError: the argument is not a table; a column is missing; or there are more than
        ``max_bad_rows`` bad rows. The message names row number (from 1), column and value.
    """
    try:
        raw = pa.table(table)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"rows of type {type(table).__name__} cannot be read ({one_line(error)}); give a "
            "pyarrow, pandas or polars table, or a dict of columns"
        ) from None
    check_names("table", raw.column_names, schema, labelled)
    report = RowReport() if report is None else report
    checker = RowChecker("table", schema, max_bad_rows, report, unit="row")
    parts = []
    # Even an empty table yields one part, which has its columns.
    for start in range(0, max(raw.num_rows, 1), _PARQUET_ROWS):
        part = raw.slice(start, _PARQUET_ROWS)
        positions = np.arange(start + 1, start + 1 + part.num_rows)
        parts.append(checker.good_rows(part, positions).typed)
    return pa.concat_tables(parts)


def check_files(
    path: Files,
    schema: Schema,
    *,
    labelled: bool | None = True,
    every: bool = False,
) -> list[SourcePath]:
    """The files of a source in reading order, after checking that their columns agree.

    Args:
      path: A file, a pattern of several, or a sequence of files with any extensions.
      schema: What the columns mean.
      labelled: Whether the label is required; None reads it if present.
      every: Whether columns that the schema ignores are read too.

    Raises:
      UserError: no file exists, a file is of an unknown kind, or the columns of the files differ.
    """
    if isinstance(path, str | os.PathLike):
        files, by_name = find_files(path), True
    else:
        files, by_name = [file for each in path for file in find_files(each)], False
    for file in files:
        known = file.suffix == ".parquet" or text_extension(file) or feature_extension(file)
        if by_name and not known:
            raise UserError(
                f"{file}: unknown kind of file; use one of "
                f"{', '.join((*EXTENSIONS, *FEATURE_EXTENSIONS))} (plain, .gz or .zst) or .parquet"
            )
    if len(files) > 1:
        _check_alike(files, schema, labelled, every)
    return files


def read_file(
    file: SourcePath,
    schema: Schema,
    *,
    max_bad_rows: int = 0,
    report: RowReport,
) -> Iterator[pa.Table]:
    """Yields the rows of one of the files returned by ``check_files``; see ``read_tables``."""
    for rows in _read_file(file, schema, True, max_bad_rows, report, _BLOCK_BYTES, every=False):
        yield rows.typed


def check_not_empty(path: Files, files: Sequence[SourcePath], read: int) -> None:
    """Checks that at least one row was read.

    Raises:
      UserError: no row was read.
    """
    if read == 0:
        path = path if isinstance(path, str | os.PathLike) else f"{files[0]} and the others"
        raise UserError(f"{path}: the file{'s hold' if len(files) > 1 else ' holds'} no rows")


def _read(
    path, schema, max_bad_rows, labelled, report, block_bytes, *, every
) -> Iterator[GoodRows]:
    files = check_files(path, schema, labelled=labelled, every=every)
    report = RowReport() if report is None else report
    for file in files:
        yield from _read_file(
            file, schema, labelled, max_bad_rows, report, block_bytes, every=every
        )
    check_not_empty(path, files, report.read)


def _read_file(
    path, schema, labelled, max_bad_rows, report, block_bytes, *, every
) -> Iterator[GoodRows]:
    unit = "row" if path.suffix == ".parquet" else "line"
    checker = RowChecker(os.fspath(path), schema, max_bad_rows, report, unit)
    try:
        if path.suffix == ".parquet":
            tables = _read_parquet(path, schema, labelled, checker, every)
        elif feature_extension(path):
            tables = read_features(path, schema, checker, block_bytes, every)
        else:
            tables = read_text(path, schema, labelled, checker, block_bytes, every)
        for rows in tables:
            if rows.typed.num_rows:
                yield rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read to its end ({one_line(error)}); is it truncated?"
        ) from None


def _check_alike(files: Sequence[SourcePath], schema: Schema, labelled, every: bool) -> None:
    """Checks that each column that is read has the same kind in all files.

    Categories are compared as text, so the integer 5 and the timestamp 5 would be two categories.
    """
    declared = {column.name for column in schema.columns if column.is_read}
    first: dict[str, str] = {}
    for file in files:
        kinds = _column_kinds(file, schema, labelled)
        if not every:
            kinds = {name: kind for name, kind in kinds.items() if name in declared}
        first = first or kinds
        for name in [*first, *kinds]:
            kind, other = (found.get(name, "missing") for found in (first, kinds))
            # A column of missing values only is of kind null, which agrees with any other.
            if kind != other and "null" not in (kind, other):
                raise UserError(
                    f"{files[0]} and {file} differ: column {name} is {kind} in the first and "
                    f"{other} in the second; make them agree, or prepare them separately"
                )


def _column_kinds(path: SourcePath, schema: Schema, labelled: bool | None) -> dict[str, str]:
    if feature_extension(path):
        return {column.name: "of features" for column in schema.columns}
    if path.suffix != ".parquet":
        return dict.fromkeys(text_columns(path, schema, labelled), "text")
    try:
        with open_random(path) as stream, pa_parquet.ParquetFile(stream) as file:
            return {field.name: _kind(field.type) for field in file.schema_arrow}
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); is it truncated?") from None


def _kind(kind: pa.DataType) -> str:
    """The kind of value of a type, regardless of width and encoding."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "floating"
    if is_list(kind) and not pa.types.is_map(kind):
        return f"list of {_kind(kind.value_type)}"
    return "text" if is_text(kind) else str(kind)


def _read_parquet(path, schema, labelled, checker, every) -> Iterator[GoodRows]:
    with open_random(path) as stream, pa_parquet.ParquetFile(stream) as file:
        names = file.schema_arrow.names
        check_names(os.fspath(path), names, schema, labelled)
        declared = {c.name for c in schema.columns if c.is_read}
        wanted = [name for name in names if every or name in declared]
        row = 1
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch])
            yield checker.good_rows(table, np.arange(row, row + table.num_rows))
            row += table.num_rows
