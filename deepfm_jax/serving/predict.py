"""Scores files: writes the same rows in the same order, each with its probability appended."""

import csv
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.sources import RowReport, read_rows, text_extension
from deepfm_jax.schema import TextFormat
from deepfm_jax.serving.predictor import Predictor

_COLUMN = "probability"


def probability_columns(tasks: Sequence[str]) -> tuple[str, ...]:
    """Columns that scoring adds: ``probability``, or ``probability_TASK`` for several tasks."""
    return (_COLUMN,) if len(tasks) == 1 else tuple(f"{_COLUMN}_{task}" for task in tasks)


class _Scored(NamedTuple):
    """Rows with their probabilities, and the file they come from."""

    table: pa.Table
    source: str


def predict_file(
    predictor: Predictor,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_bad_rows: int = 0,
) -> RowReport:
    """Writes every column of each good row unchanged, then its probability for each task.

    The name of the output gives its format: ``.parquet``, or text in the layout of the schema (with
    a header line if the input has one), compressed if the name ends in a compression suffix. The
    output is written completely or not at all. If several files order their columns differently,
    all rows follow the first file.

    Raises:
      UserError: the output cannot be written or its format is unknown; cells cannot be written as
        text; the input already has a column of probabilities; the columns of a later file differ
        from those of the first; or see ``sources.read_tables``.
    """
    output = pathlib.Path(output)
    if output.suffix != ".parquet" and text_extension(output) is None:
        raise UserError(f"{output}: unknown kind of file; use .tsv, .csv, .txt or .parquet")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: its folder does not exist; make it first")
    report = RowReport()
    schema = predictor.encoder.schema
    tables = _scored(predictor, path, max_bad_rows, report)
    # The suffix is kept because the writer infers the compression from it.
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    try:
        if output.suffix == ".parquet":
            _write_parquet(temporary, tables)
        else:
            _write_text(temporary, tables, schema.text)
        if report.kept == 0:
            raise UserError(f"{path}: no good row to score ({report.rejected} rejected)")
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _scored(predictor, path, max_bad_rows, report) -> Iterator[_Scored]:
    schema, names = predictor.encoder.schema, None
    columns = probability_columns(predictor.tasks)
    for rows in read_rows(path, schema, max_bad_rows=max_bad_rows, report=report):
        for column in columns:
            if column in rows.raw.column_names:
                raise UserError(f"{rows.source}: already has a column {column!r}; rename it")
        names = names or rows.raw.column_names
        table = rows.raw.select(names)
        for column, of_task in zip(columns, predictor.probabilities(rows.typed).T, strict=True):
            table = table.append_column(column, pa.array(of_task, pa.float64()))
        yield _Scored(table, rows.source)


def _write_parquet(path: pathlib.Path, scored: Iterator[_Scored]) -> None:
    writer = None
    for table, source in scored:
        writer = writer or pa_parquet.ParquetWriter(path, table.schema)
        writer.write_table(_as_first(table, writer.schema, source))
    if writer is not None:
        writer.close()


def _as_first(table: pa.Table, first: pa.Schema, source: str) -> pa.Table:
    """Casts columns to the types of the first file: integer widths or text encodings may differ."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = first.field(name).type
        try:
            columns.append(column.cast(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{source}, column {name}: cells of type {column.type} do not fit the type {kind} "
                f"of the first file ({one_line(error)}); score the files one by one"
            ) from None
    return pa.table(columns, schema=first)


def _write_text(path: pathlib.Path, scored: Iterator[_Scored], text: TextFormat) -> None:
    with pa.output_stream(os.fspath(path), compression="detect") as stream:
        for index, (table, source) in enumerate(scored):
            if index == 0 and text.header:
                line = io.StringIO()
                csv.writer(line, delimiter=text.delimiter, lineterminator="\n").writerow(
                    table.column_names
                )
                stream.write(line.getvalue().encode())
            stream.write(_lines(table, source, text))


def _lines(table: pa.Table, source: str, text: TextFormat) -> pa.Buffer:
    """Rows as text, quoted only if a cell of these rows needs it."""
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_nested(kind):
            raise UserError(
                f"{source}, column {name}: text cannot hold cells of type {kind}; write the output "
                "as .parquet"
            )
        if pa.types.is_string_view(kind):  # The writer does not support it.
            place = table.column_names.index(name)
            table = table.set_column(place, name, table.column(place).cast(pa.string()))
    try:
        return _written(table, text, "none")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    try:
        return _written(table, text, "needed")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        _check_columns(table, source, text)
        raise


def _written(table: pa.Table, text: TextFormat, style: str) -> pa.Buffer:
    buffer = pa.BufferOutputStream()
    options = pa_csv.WriteOptions(
        include_header=False, delimiter=text.delimiter, quoting_style=style
    )
    pa_csv.write_csv(table, buffer, options)
    return buffer.getvalue()


def _check_columns(table: pa.Table, source: str, text: TextFormat) -> None:
    """Finds the column that cannot be written as text.

    Raises:
      UserError: a column cannot be written, for example bytes that are not valid text.
    """
    for name in table.column_names:
        try:
            _written(table.select([name]), text, "needed")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{source}, column {name}: cells of type {table.schema.field(name).type} cannot be "
                f"written as text ({one_line(error)}); write the output as .parquet"
            ) from None
