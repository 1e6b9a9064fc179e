"""Raw files to clean, typed tables, a chunk at a time, so that memory does not grow with rows."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from deepfm_jax.data.row_checker import GoodRows, RowChecker, RowReport
from deepfm_jax.data.text_files import EXTENSIONS, check_names, read_text, text_extension
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.schema import Ignored, Schema

_BLOCK_BYTES = 16 << 20
_PARQUET_ROWS = 1 << 16

__all__ = ["GoodRows", "RowReport", "read_rows", "read_tables", "text_extension"]


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
      block_bytes: Bytes of text read at a time; no row may be longer.

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
        tables = read_text(path, schema, labelled, checker, block_bytes, every)
    else:
        raise UserError(
            f"{path}: unknown kind of file; use one of {', '.join(EXTENSIONS)} "
            "(plain, .gz or .zst) or .parquet"
        )
    found = False
    try:
        for rows in tables:
            found = True
            if rows.typed.num_rows:
                yield rows
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {one_line(error)}") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read to its end ({one_line(error)}); is it truncated?"
        ) from None
    if not found:
        raise UserError(f"{path}: the file holds no rows")


def _read_parquet(path, schema, labelled, checker, every) -> Iterator[GoodRows]:
    with pa_parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        check_names(os.fspath(path), names, schema, labelled)
        declared = {c.name for c in schema.columns if not isinstance(c, Ignored)}
        wanted = [name for name in names if every or name in declared]
        row = 1
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch])
            yield checker.good_rows(table, np.arange(row, row + table.num_rows))
            row += table.num_rows
