"""Reads libsvm, libfm and libffm files in blocks; each row is typed, or rejected with its line."""

import os
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from deepfm_jax.errors import UserError
from deepfm_jax.readers.libsvm_text import FeatureRows, parse_rows
from deepfm_jax.readers.paths import SourcePath, extension, open_text
from deepfm_jax.readers.row_checker import Fault, GoodRows, MalformedRow, RowChecker
from deepfm_jax.schema import Column, Schema

_WITH_FIELDS = (".libffm", ".ffm")
FEATURE_EXTENSIONS = (".libsvm", ".libfm", ".svm", *_WITH_FIELDS)
# Parsing temporarily takes about 25 times the size of a block.
_BLOCK_BYTES = 4 << 20
_OTHER_VALUE = "is an id with a value other than 1, in a column of plain ids"
# Feature uses that take any number of features per row.
_SEVERAL = ("ids", "pairs")
FIELD_COLUMN = "field_"  # Followed by the number of the field.


def feature_extension(path: str | os.PathLike[str]) -> str | None:
    """The extension (``.libsvm``, ``.ffm``) of a feature file, compressed or not; else None."""
    found = extension(path)
    return found if found in FEATURE_EXTENSIONS else None


def names_fields(path: str | os.PathLike[str]) -> bool:
    """Whether the features of a file name their fields, as in ``field:id:value``."""
    return extension(path) in _WITH_FIELDS


def read_blocks(
    path: SourcePath, *, width: int | None = None, block_bytes: int
) -> Iterator[tuple[FeatureRows, list[MalformedRow]]]:
    """Yields the rows of a file and its malformed lines; see ``libsvm_text.parse_rows``.

    Args:
      path: The file.
      width: Number of features that every row must have; None accepts any number.
      block_bytes: Bytes read at a time; no row may be longer.

    Raises:
      UserError: the file is empty, or a row is too long.
      OSError: the file cannot be read to its end.
    """
    line = 1
    with open_text(path) as stream:
        for block in _whole_lines(path, stream, block_bytes):
            yield parse_rows(block, first_line=line, with_fields=names_fields(path), width=width)
            line += block.count(b"\n")
    if line == 1:
        raise UserError(f"{path}: the file is empty")


def _whole_lines(path: SourcePath, stream: pa.NativeFile, block_bytes: int) -> Iterator[bytes]:
    held, line = b"", 1
    while piece := stream.read(block_bytes):
        if line == 1 and not held:  # Some editors write a byte order mark.
            piece = piece.removeprefix(b"\xef\xbb\xbf")
        end = piece.rfind(b"\n") + 1
        if len(held) + (piece.find(b"\n") if end else len(piece)) > block_bytes:
            raise UserError(f"{path}, line {line}: the row is longer than {block_bytes:,} bytes")
        if end:
            block = held + piece[:end]
            line += block.count(b"\n")
            held = piece[end:]
            yield block
        else:
            held += piece
    if held:
        yield held + b"\n"


def read_features(
    path: SourcePath, schema: Schema, checker: RowChecker, block_bytes: int, every: bool
) -> Iterator[GoodRows]:
    """Yields the rows of a file as the columns of a schema; see ``sources.read_rows``.

    A categorical column takes the ids of its features, whose values must be 1. A numeric column
    takes the values of its feature, whose id must be the same in all rows. A column of several
    values takes ids or, if it has a ``weight_separator``, pairs of an id and a value.

    Args:
      path: The file.
      schema: Its columns, except the label, are the features of each row, in order. If features
        name their fields, column ``field_N`` takes field N. Otherwise, a column of several values
        takes all features if it is the only column.
      checker: Types the rows.
      block_bytes: Bytes read at a time, at most 4 MiB; no row may be longer.
      every: Whether columns that the schema ignores are read too.

    Raises:
      UserError: see ``sources.read_tables``; or features name their fields and a column is not
        named ``field_N``.
      OSError: the file cannot be read to its end.
    """
    columns = _Columns(path, schema, every)
    block_bytes = min(block_bytes, _BLOCK_BYTES)
    for rows, malformed in read_blocks(path, width=columns.width, block_bytes=block_bytes):
        table, suspects = columns.table(rows)
        yield checker.good_rows(table, rows.lines, malformed, suspects)


class _Columns:
    """Converts features to columns, and reports features that do not fit their column."""

    def __init__(self, path: SourcePath, schema: Schema, every: bool):
        self._label = schema.label
        self._features = [column for column in schema.columns if column.target != "label"]
        self._every = every
        self._negative: float | None = None
        self._numeric_ids: dict[str, int] = {}
        self._order = np.arange(len(self._features))
        self.width: int | None = len(self._features)
        self._takes_all = self.width == 1 and self._features[0].feature_use in _SEVERAL
        if self._takes_all:
            self.width = None
        if names_fields(path):
            self._takes_all = False
            self.width = None
            numbers = np.array([_field_number(path, column) for column in self._features])
            self._order = np.argsort(numbers)
            self._numbers = numbers[self._order]

    def table(self, rows: FeatureRows) -> tuple[pa.Table, dict[int, Fault]]:
        """One column for each column of the schema, null where a row lacks the feature."""
        faults: dict[int, Fault] = {}
        columns = {self._label.name: self._labels(rows.labels, faults)}
        slots, row_of = self._slots(rows, faults), rows.rows
        known = slots >= 0
        cells = row_of[known] * len(self._features) + slots[known]
        shape = (len(rows.lines), len(self._features))
        counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
        ids, values = np.zeros(counts.size, np.int64), np.ones(counts.size)
        ids[cells], values[cells] = rows.ids[known], rows.values[known]
        ids, values = ids.reshape(shape), values.reshape(shape)
        for slot, column in enumerate(self._features):
            if not (column.is_read or self._every):
                continue
            if column.feature_use in _SEVERAL:
                columns[column.name] = self._lists(column, rows, slots == slot, faults)
                continue
            if column.is_read:
                self._check(column, ids[:, slot], values[:, slot], counts[:, slot], faults)
            cell = values if column.feature_use == "value" else ids
            columns[column.name] = pa.array(cell[:, slot], mask=counts[:, slot] == 0)
        return pa.table(columns), faults

    def _slots(self, rows: FeatureRows, faults: dict[int, Fault]) -> np.ndarray:
        """The column index of each feature; -1 for a field without a column."""
        if rows.fields is None:
            return np.zeros_like(rows.ids) if self._takes_all else rows.positions
        at = np.minimum(np.searchsorted(self._numbers, rows.fields), len(self._numbers) - 1)
        known = self._numbers[at] == rows.fields
        if not known.all():
            row_of = rows.rows
            for feature in np.flatnonzero(~known):
                reason = f"field {rows.fields[feature]} has no column {FIELD_COLUMN}N in the schema"
                faults.setdefault(int(row_of[feature]), Fault("", None, reason))
        return np.where(known, self._order[at], -1)

    def _lists(self, column: Column, rows: FeatureRows, chosen, faults) -> pa.ListArray:
        weighted = column.feature_use == "pairs"
        if not weighted:
            row_of = rows.rows
            for feature in np.flatnonzero(chosen & (rows.values != 1)):
                pair = f"{rows.ids[feature]}:{rows.values[feature]:g}"
                faults.setdefault(int(row_of[feature]), Fault(column.name, pair, _OTHER_VALUE))
        return rows.lists(chosen, weighted=weighted)

    def _check(self, column: Column, ids, values, counts, faults: dict[int, Fault]) -> None:
        present = counts > 0
        for row in np.flatnonzero(counts > 1):
            reason = f"column {column.name}: {counts[row]} features of one field"
            faults.setdefault(int(row), Fault("", None, reason))
        if column.feature_use == "value":
            if present.any():
                self._numeric_ids.setdefault(column.name, int(ids[present][0]))
            first = self._numeric_ids.get(column.name)
            bad = present & (ids != first)
            reason = f"does not have id {first}, the first of this numeric column"
        else:
            bad = present & (values != 1)
            reason = _OTHER_VALUE
        for row in np.flatnonzero(bad):
            pair = f"{ids[row]}:{values[row]:g}"
            faults.setdefault(int(row), Fault(column.name, pair, reason))

    def _labels(self, labels: np.ndarray, faults: dict[int, Fault]) -> pa.Array:
        """Labels as text. A label of -1 becomes 0, and a file must not contain both -1 and 0."""
        if self._label.values is None:
            negative = labels[(labels == 0) | (labels == -1)]
            if self._negative is None and len(negative):
                self._negative = float(negative[0])
            if self._negative == -1:
                for row in np.flatnonzero(labels == 0):
                    reason = "is not -1 or 1, as the labels before it are"
                    faults[int(row)] = Fault(self._label.name, "0", reason)
                labels = np.where(labels == -1, 0, labels)
        different, inverse = np.unique(labels, return_inverse=True)
        texts = [repr(label).removesuffix(".0") for label in different.tolist()]
        return pa.array(texts, pa.string()).take(pa.array(inverse))


def _field_number(path: SourcePath, column: Column) -> int:
    found = re.fullmatch(rf"{FIELD_COLUMN}(0|[1-9]\d{{0,8}})", column.name)
    if found is None:
        raise UserError(
            f"{path}: its features name their fields, so the columns of the schema must be named "
            f"after fields, such as {FIELD_COLUMN}0; {column.name!r} is not"
        )
    return int(found[1])
