"""Infers a schema for libsvm, libfm and libffm files from their first rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.libsvm_files import FIELD_COLUMN, names_fields, read_blocks
from deepfm_jax.readers.libsvm_text import FeatureRows
from deepfm_jax.readers.paths import SourcePath
from deepfm_jax.schema import Categorical, Column, Label, MultiValued, Numeric

_SAMPLE_BYTES = 8 << 20
# The share of rows that may deviate; ``prepare`` reports them as bad rows.
_FEW = 0.01


class Features(NamedTuple):
    """The inferred columns.

    Attributes:
      columns: The label and the fields, in the order of the features.
      rows: Number of rows in the sample.
      reasons: The reason for each column, by name.
    """

    columns: tuple[Column, ...]
    rows: int
    reasons: Mapping[str, str]


def infer_features(path: SourcePath, label: str | None = None) -> Features:
    """Infers the columns of a file of features.

    A field is the number before the id or, without one, the position of the feature in its row,
    from 1. A field is categorical if all its features have value 1, and numeric if they all have
    the same id. A field with several features in a row, or with several ids and values, is
    multi-valued, with the values as weights. If features do not name their fields and rows differ
    in length, all features belong to one field.

    Args:
      path: The file.
      label: Name for the first number of each line; None calls it ``label``.

    Raises:
      UserError: the file cannot be read or holds no row, or a multi-valued field has a negative
        value.
    """
    rows = _sample(path)
    several = int(np.bincount(rows.counts).argmax())
    is_one_field = rows.fields is None and not _few(rows.counts != several)
    fields = rows.positions + 1 if rows.fields is None else rows.fields
    columns: list[Column] = [Label(label or "label")]
    reasons = {columns[0].name: "the first number of each line"}
    row_of = rows.rows
    wanted = np.unique(fields) if names_fields(path) else np.arange(1, several + 1)
    if is_one_field:
        everything = np.arange(len(rows.ids))
        column, reasons["features"] = _several(path, "features", rows, row_of, everything)
        return Features((columns[0], column), len(rows.lines), reasons)
    for number in wanted.tolist():
        inside = np.flatnonzero(fields == number)
        name = f"{FIELD_COLUMN}{number}"
        column, reasons[name] = _column(path, name, rows, row_of, inside)
        columns.append(column)
    if len(columns) == 1:
        raise UserError(f"{path}: its rows have labels but no features")
    return Features(tuple(columns), len(rows.lines), reasons)


def _sample(path: SourcePath) -> FeatureRows:
    try:
        rows, malformed = next(read_blocks(path, block_bytes=_SAMPLE_BYTES))
    except StopIteration:
        raise UserError(f"{path}: the file is empty") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); is it truncated?") from None
    if len(rows.lines) == 0:
        where = f", line {malformed[0].position}" if malformed else ""
        reason = malformed[0].reason if malformed else "the file holds no rows"
        raise UserError(f"{path}{where}: {reason}")
    return rows


def _few(others: np.ndarray) -> bool:
    return bool(others.sum() <= _FEW * len(others))


def _column(
    path: SourcePath, name: str, rows: FeatureRows, row_of: np.ndarray, inside: np.ndarray
) -> tuple[Column, str]:
    """Infers the column of one field, and returns it with the reason."""
    ids, values = rows.ids[inside], rows.values[inside]
    share = 1 - len(np.unique(row_of[inside])) / len(rows.lines)
    missing = f", {share:.1%} missing" if share else ""
    if not _few(np.bincount(row_of[inside], minlength=len(rows.lines)) > 1):
        return _several(path, name, rows, row_of, inside)
    different, counts = np.unique(ids, return_counts=True)
    ones = values == 1
    usual = different[counts.argmax()]
    has_one_id = counts.max() >= (1 - _FEW) * len(ids)
    if has_one_id and not ones[ids == usual].all():
        reason = f"values from {values.min():g} to {values.max():g} of id {usual}{missing}"
        return Numeric(name, transform="quantile"), reason
    if ones.mean() >= 1 - _FEW:
        reason = f"{len(different):,} ids from {ids.min()} to {ids.max()}{missing}"
        return Categorical(name, dtype="integer"), reason
    return _several(path, name, rows, row_of, inside)


def _several(
    path: SourcePath, name: str, rows: FeatureRows, row_of: np.ndarray, inside: np.ndarray
) -> tuple[Column, str]:
    values, counts = rows.values[inside], np.bincount(row_of[inside])
    negative = np.flatnonzero(values < 0)
    if len(negative):
        feature = inside[negative[0]]
        raise UserError(
            f"{path}, line {rows.lines[row_of[feature]]}: {name} has several ids, and "
            f"{rows.ids[feature]}:{rows.values[feature]:g} is negative; only a field with a single "
            "id may have negative values"
        )
    most = int(counts.max(initial=1))
    weights = None if (values == 1).all() else ":"
    column = MultiValued(
        name, dtype="integer", max_length=most, combiner="sum", weight_separator=weights
    )
    return column, f"up to {most} ids in a row{', with values' if weights else ''}"
