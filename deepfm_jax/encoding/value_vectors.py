"""Reads pretrained vectors of a column's values from Parquet files, and assigns them to ids."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet
from jaxtyping import Float32, Int64

from deepfm_jax.cells.lists import is_list
from deepfm_jax.cells.text import cleaned, decoded, is_text
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.paths import SourcePath, find_files, open_random
from deepfm_jax.schema import Field, TextFormat

_VALUE, _VECTOR = "value", "vector"
_PARQUET_ROWS = 1 << 14
# Without a buffer, all vectors of a row group are read at once.
_BUFFER = 1 << 20


@dataclasses.dataclass(frozen=True)
class ValueVectors:
    """The vectors that files hold for the ids of one field.

    Attributes:
      field: Index of the field that owns the ids.
      ids: Ids that have a vector, ascending.
      vectors: The vector of each id, P numbers; in a hashed column, the mean over its values.
      possible: Number of ids that values of the column can have: the size of the vocabulary, or the
        number of hash buckets.
      unknown: Number of values in the files that are not in the vocabulary.
      shared: Number of values in the files that share their bucket with others.
    """

    field: int
    ids: Int64[np.ndarray, "ids"]
    vectors: Float32[np.ndarray, "ids length"]
    possible: int
    unknown: int
    shared: int


def field_of_values(encoder: Encoder, column: str) -> int:
    """Index of the field that owns the ids of a column's values: its own, or the one it shares.

    Raises:
      UserError: the column does not exist, or its values have no ids.
    """
    schema = encoder.schema
    valued = {
        field.name: owner
        for field, owner in zip(schema.fields, schema.owners, strict=True)
        if field.is_category
    }
    if column in valued:
        return valued[column]
    what = "is not a column of the schema"
    declared = {each.name: each for each in (*schema.columns, *schema.fields)}
    if column in declared:
        what = f"is a {declared[column].kind} column, whose values have no ids"
    names = ", ".join(valued) or "none"
    raise UserError(f"column {column!r} {what}; columns with ids: {names}")


def read_value_vectors(path: str | os.PathLike[str], encoder: Encoder, column: str) -> ValueVectors:
    """Reads the vectors of a column's values.

    The files are Parquet, with the values under the column's name or ``value``, and lists of
    numbers under ``vector``. Values are parsed like the column's cells. Memory holds only the
    vectors of values that have an id.

    Args:
      path: A file, or a pattern for several, on a disk or behind a URL.
      encoder: Encoder of the training rows.
      column: A categorical, multi-valued or history column, or a part of times (``time_hour``).

    Raises:
      UserError: see ``field_of_values``; a file does not exist or lacks these columns; a row has no
        value or an invalid one; a vector is missing, differs in length from the first, or has a
        number that is not finite; a value appears twice; or no value of the column has a vector.
    """
    number = field_of_values(encoder, column)
    field = encoder.schema.fields[number]
    coder, text = encoder.coders[number], encoder.schema.text
    files = find_files(path)
    kept = [_with_ids(part, coder) for part in _checked_parts(files, column, field, text)]
    possible = coder.dim - coder.first_id
    if not any(len(part.ids) for part in kept):
        raise UserError(
            f"{path}: none of the {possible:,} values of column {column!r} has a vector; are the "
            "values written as in the training rows?"
        )
    _check_distinct(kept, column)
    unknown = sum(part.unknown for part in kept)
    ids, vectors, shared = _by_id(kept)
    return ValueVectors(number, ids, vectors, possible, unknown, shared)


class _Part(NamedTuple):
    """Some rows of a file; after ``_with_ids``, only those whose values have ids.

    Attributes:
      file: The file.
      rows: Number of each row in the file, from 1.
      values: Typed value of each row.
      vectors: Vector of each row.
      ids: Id of each row.
      unknown: Number of rows that were dropped.
    """

    file: SourcePath
    rows: np.ndarray
    values: pa.Array
    vectors: np.ndarray
    ids: np.ndarray
    unknown: int = 0


def _with_ids(part: _Part, coder: FieldCoder) -> _Part:
    """Keeps the rows whose values have an id, and adds the ids."""
    ids = coder.value_ids(part.values).astype(np.int64)
    has_id = ids >= coder.first_id
    if has_id.all():
        return part._replace(ids=ids)
    return part._replace(
        values=part.values.filter(pa.array(has_id)),
        rows=part.rows[has_id],
        ids=ids[has_id],
        vectors=part.vectors[has_id],
        unknown=int((~has_id).sum()),
    )


def _checked_parts(
    files: Sequence[SourcePath], column: str, field: Field, text: TextFormat
) -> Iterator[_Part]:
    """Yields the rows of files in parts, checked, without ids."""
    length = None
    for file in files:
        row = 1
        for raw_values, raw_vectors in _raw_parts(file, column):
            values = _typed_values(raw_values, field, text, f"{file}, row ", row)
            vectors = _typed_vectors(raw_vectors, length, f"{file}, row ", row)
            length = vectors.shape[1]
            rows = np.arange(row, row + len(values))
            yield _Part(file, rows, values, vectors, ids=np.zeros(0))
            row += len(values)


def _raw_parts(file: SourcePath, column: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    try:
        with (
            open_random(file) as stream,
            pa_parquet.ParquetFile(stream, buffer_size=_BUFFER) as parquet,
        ):
            names = parquet.schema_arrow.names
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise UserError(f"{file}: column {twice[0]!r} appears twice")
            values = column if column in names else _VALUE
            for name, what in ((values, f"{column!r} or {_VALUE!r}"), (_VECTOR, f"{_VECTOR!r}")):
                if name not in names:
                    raise UserError(
                        f"{file}: has no column {what}; it has {', '.join(map(repr, names))}"
                    )
            kind = parquet.schema_arrow.field(_VECTOR).type
            if not _is_numbers(kind):
                raise UserError(f"{file}, column {_VECTOR!r}: is {kind}, not lists of numbers")
            for batch in parquet.iter_batches(_PARQUET_ROWS, columns=[values, _VECTOR]):
                if batch.num_rows:
                    yield batch[values], batch[_VECTOR]
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: cannot be read as Parquet ({one_line(error)})") from None
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read to its end ({one_line(error)}); is it truncated?"
        ) from None


def _typed_values(raw: pa.Array, field: Field, text: TextFormat, where: str, row: int) -> pa.Array:
    """Types values like the cells of the column; none is null."""
    cells = decoded(raw)
    try:
        cells = cleaned(cells, text) if is_text(cells.type) else cells
        values, bad, reason = field.type_values(cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{where}{row}: values of type {raw.type} cannot be read as {field.value_noun}s "
            f"({one_line(error)})"
        ) from None
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise UserError(f"{where}{row + first}: value {str(cells[first])!r} {reason}")
    if values.null_count:
        first = int(np.flatnonzero(pc.is_null(values).to_numpy(zero_copy_only=False))[0])
        raise UserError(f"{where}{row + first}: has no value; leave such rows out")
    return values


def _is_numbers(kind: pa.DataType) -> bool:
    if not is_list(kind) or pa.types.is_map(kind):
        return False
    return pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)


def _typed_vectors(raw: pa.Array, length: int | None, where: str, row: int) -> np.ndarray:
    """Returns float32 vectors [rows, P], where P is ``length`` if that is known."""
    lengths = pc.fill_null(pc.list_value_length(raw), 0).to_numpy(zero_copy_only=False)
    length = int(lengths[0]) if length is None else length
    wrong = np.flatnonzero((lengths != length) | (lengths == 0))
    if len(wrong):
        found = int(lengths[wrong[0]])
        what = f"has {found} numbers, but those before it have {length}" if found else "is missing"
        raise UserError(f"{where}{row + int(wrong[0])}: the vector {what}")
    # A null becomes NaN, and a number outside float32 becomes infinite.
    numbers = pc.list_flatten(raw).cast(pa.float32(), safe=False).fill_null(np.nan)
    vectors = numbers.to_numpy(zero_copy_only=False).reshape(-1, length)
    bad = np.argwhere(~np.isfinite(vectors))
    if len(bad):
        first, place = bad[0]
        raise UserError(
            f"{where}{row + int(first)}: the vector has {vectors[first, place]} among its numbers"
        )
    return vectors


def _check_distinct(parts: list[_Part], column: str) -> None:
    values = pa.concat_arrays([part.values for part in parts]).dictionary_encode()
    places = values.indices.to_numpy()
    if len(values.dictionary) == len(places):
        return
    counts = np.bincount(places)
    # The first duplicate value, and its rows.
    again = places[np.flatnonzero(counts[places] > 1)[0]]
    where = [f"{part.file}, row {row}" for part in parts for row in part.rows.tolist()]
    first, second = np.flatnonzero(places == again)[:2]
    raise UserError(
        f"{where[second]}: value {values.dictionary[int(again)].as_py()!r} of column {column!r} "
        f"already has a vector in {where[first]}; keep only one of them"
    )


def _by_id(parts: list[_Part]) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns distinct ids, ascending, their mean vectors, and how many values share an id."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(ids))
    # Each part is written to its place, because another copy of all vectors may not fit in memory.
    vectors = np.empty((len(ids), parts[0].vectors.shape[1]), np.float32)
    ends = np.cumsum([len(part.ids) for part in parts])
    for part, own in zip(parts, np.split(places, ends[:-1]), strict=True):
        vectors[own] = part.vectors
    ids = ids[order]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    if len(starts) == len(ids):
        return ids, vectors, 0
    counts = np.diff(starts, append=len(ids))
    sums = np.add.reduceat(vectors, starts, axis=0, dtype=np.float64)
    means = (sums / counts[:, None]).astype(np.float32)
    return ids[starts], means, int(counts[counts > 1].sum())
