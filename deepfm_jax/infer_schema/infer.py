"""Infers a first schema for an unknown file from a sample, with a reason for each choice."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from deepfm_jax.errors import UserError, one_line
from deepfm_jax.infer_schema.columns import infer_column, infer_label
from deepfm_jax.infer_schema.libsvm import infer_features
from deepfm_jax.infer_schema.sniffing import NUMBER, is_header, sniff, usual_width
from deepfm_jax.readers.display import plain, shown
from deepfm_jax.readers.libsvm_files import feature_extension
from deepfm_jax.readers.paths import SourcePath, find_files, open_random, open_text
from deepfm_jax.readers.sources import text_extension
from deepfm_jax.readers.text_files import cause, no_header, no_rows
from deepfm_jax.schema import Column, Schema, TextFormat

_SAMPLE_ROWS = 100_000
_SAMPLE_BYTES = 32 << 20
_BLOCK_BYTES = 4 << 20  # The longest row that ``sources.read_tables`` accepts.
# Words that tools write for a missing value.
_MISSING = ("NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N", "?")


@dataclasses.dataclass(frozen=True)
class Inference:
    """An inferred schema with its reasons.

    Attributes:
      schema: The schema, for the user to review and edit.
      rows: Number of rows in the sample.
      layout: Description of the text layout; empty for Parquet.
      reasons: The reason for each column, by name.
    """

    schema: Schema
    rows: int
    layout: str
    reasons: Mapping[str, str]

    def describe(self) -> str:
        """Describes the schema, with one line per column."""
        lines = [f"from {self.rows:,} rows{': ' if self.layout else ''}{self.layout}"]
        names = [plain(column.name) for column in self.schema.columns]
        width = max(map(len, names))
        for name, column in zip(names, self.schema.columns, strict=True):
            lines.append(f"{name:{width}}  {column.kind:12} {self.reasons[column.name]}")
        return "\n".join(lines)


def infer_schema(path: str | os.PathLike[str], label: str | None = None) -> Inference:
    """Infers the schema of a text, Parquet or libsvm file.

    Args:
      path: The file, or a pattern of files, of which the first is read.
      label: Name of the label; None looks for one by name and content.

    Raises:
      UserError: the file cannot be read or holds no table, or no column can be the label.
    """
    file = find_files(path)[0]
    if feature_extension(file):
        features = infer_features(file, label)
        return Inference(Schema(features.columns), features.rows, "features", features.reasons)
    if file.suffix == ".parquet":
        table, text, layout = _parquet_sample(file), TextFormat(), ""
    elif text_extension(file):
        table, text, layout = _text_sample(file)
    else:
        raise UserError(f"{file}: unknown kind of file; use text (.csv, .tsv, .txt) or .parquet")
    if table.num_rows == 0:
        raise UserError(f"{file}: the file holds no rows")
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"{file}: column {shown(twice[0])} appears twice")
    found, reason = infer_label(file, table, label)
    columns: list[Column] = []
    reasons = {found.name: reason}
    for name in table.column_names:
        if name == found.name:
            columns.append(found)
        else:
            column, reasons[name] = infer_column(name, table[name].combine_chunks())
            columns.append(column)
    _check_fields(file, columns)
    schema = Schema(tuple(columns), text)
    return Inference(schema, table.num_rows, layout, reasons)


def _check_fields(file: SourcePath, columns: Sequence[Column]) -> None:
    if not any(column.fields for column in columns):
        labels = [column.name for column in columns if column.target == "label"]
        raise UserError(
            f"{file}: no column except the label {shown(labels[0])} can be a field of a model"
        )


def _parquet_sample(path: SourcePath) -> pa.Table:
    try:
        with open_random(path) as stream, pa_parquet.ParquetFile(stream) as file:
            batch = next(file.iter_batches(batch_size=_SAMPLE_ROWS), None)
            if batch is None:
                return file.schema_arrow.empty_table()
            return pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None


def _text_sample(path: SourcePath) -> tuple[pa.Table, TextFormat, str]:
    content = _whole_lines(path)
    try:
        every_line = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: not valid UTF-8; convert the file to UTF-8"
        ) from None
    lines = [line for line in every_line if line.strip()]
    if not lines:  # Only characters that are space in text, but not in bytes.
        raise UserError(f"{path}: the file is empty")
    if not every_line[0].strip():
        raise UserError(no_header(path))
    text, rows = sniff(path, lines)
    width, first = usual_width(rows), rows[0]
    if len(first) != width:
        raise UserError(
            f"{path}, line 1: {len(first)} columns instead of {width} in {lines[0][:60]!r}; the "
            "names of the columns, or the first row, must come first"
        )
    header = is_header(first, rows[1:])
    names = first if header else [f"column_{number}" for number in range(1, len(first) + 1)]
    text = dataclasses.replace(text, header=header)
    table = _trimmed(_read(path, content, names, text), text)
    words = _missing_words(table)
    text = dataclasses.replace(text, missing=words)
    if words:
        table = _trimmed(_read(path, content, names, text), text)
    layout = f"delimiter {text.delimiter!r}, " + ("a header" if header else "no header")
    if text.trim:
        layout += ", spaces around cells"
    if words:
        layout += f", missing values as {', '.join(words)}"
    return table, text, layout


def _whole_lines(path: SourcePath) -> bytes:
    """Reads the beginning of a text file, up to the end of a line."""
    try:
        with open_text(path) as stream:
            content = stream.read(_SAMPLE_BYTES)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); is it truncated?") from None
    if not content.strip():
        raise UserError(f"{path}: the file is empty")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: holds NUL bytes; convert the file to UTF-8")
    if len(content) == _SAMPLE_BYTES and b"\n" in content:
        content = content[: content.rindex(b"\n") + 1]
    return content


def _read(path: SourcePath, content: bytes, names: list[str], text: TextFormat) -> pa.Table:
    """Reads the cells as text, except rows of the wrong width (``prepare`` names them)."""
    try:
        return pa_csv.read_csv(
            io.BytesIO(content),
            read_options=pa_csv.ReadOptions(
                column_names=names, skip_rows=int(text.header), block_size=_BLOCK_BYTES
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=text.delimiter,
                quote_char='"' if text.quoting else False,
                newlines_in_values=text.quoting,
                invalid_row_handler=lambda row: "skip",
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=["", *text.missing],
            ),
        ).slice(0, _SAMPLE_ROWS)
    except pa.ArrowInvalid as error:
        if no_rows(error):
            return pa.table({name: pa.array([], pa.string()) for name in names})
        raise UserError(f"{path}{cause(path, error, text, _BLOCK_BYTES)}") from None


def _trimmed(table: pa.Table, text: TextFormat) -> pa.Table:
    if not text.trim:
        return table
    cells = [pc.utf8_trim_whitespace(column) for column in table.columns]
    missing = pa.array(["", *text.missing])
    cells = [pc.if_else(pc.is_in(column, value_set=missing), None, column) for column in cells]
    return pa.table(cells, names=table.column_names)


def _missing_words(table: pa.Table) -> tuple[str, ...]:
    """The words for missing values: frequent ones, and those in columns otherwise of numbers."""
    found = set()
    for column in table.columns:
        values, counts = pc.value_counts(column.combine_chunks()).flatten()
        rows = dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))
        words = [word for word in _MISSING if word in rows]
        others = [value for value in rows if value is not None and value not in _MISSING]
        if words and all(NUMBER.fullmatch(value) for value in others):
            found.update(words)
        found.update(word for word in words if rows[word] >= 0.01 * table.num_rows)
    return tuple(word for word in _MISSING if word in found)
