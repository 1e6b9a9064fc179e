"""A schema for files of libsvm, libfm and libffm, from the first of their rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deepfm_jax.data.libsvm_files import FIELD_COLUMN, names_fields, read_blocks
from deepfm_jax.data.libsvm_text import FeatureRows
from deepfm_jax.data.paths import SourcePath
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.schema import Categorical, Column, Label, Numeric

_SAMPLE_BYTES = 8 << 20
# So few of the rows may be otherwise: ``prepare`` names them as bad ones.
_FEW = 0.01


class Features(NamedTuple):
    """What was found.

    Attributes:
      columns: The label and the fields, in the order of the features.
      rows: Rows of the sample.
      reasons: For each column, what was decided by.
    """

    columns: tuple[Column, ...]
    rows: int
    reasons: Mapping[str, str]


def infer_features(path: SourcePath, label: str | None = None) -> Features:
    """The columns of a file of features.

    A field is the number before the id, or else the place of the feature in its row, from 1. One
    whose features all have value 1 is categorical, one of a single id numeric.

    Args:
      path: The file.
      label: What the first number of each line is called; None calls it ``label``.

    Raises:
      UserError: the file cannot be read or holds no row; or rows have several features of a field,
        or, without fields, different numbers of features; or a field has several ids and values.
    """
    rows = _sample(path)
    several = np.bincount(rows.counts).argmax()
    fields = rows.fields
    if fields is None:
        _check_counts(path, rows, int(several))
        fields = rows.positions + 1
    columns: list[Column] = [Label(label or "label")]
    reasons = {columns[0].name: "the first number of each line"}
    row_of = rows.rows
    wanted = np.unique(fields) if names_fields(path) else np.arange(1, several + 1)
    for number in wanted.tolist():
        inside = np.flatnonzero(fields == number)
        _check_single(path, rows, row_of[inside], number)
        name = f"{FIELD_COLUMN}{number}"
        column, reasons[name] = _column(path, name, rows, row_of, inside)
        columns.append(column)
    if len(columns) == 1:
        raise UserError(f"{path}: its rows have labels and no features")
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


def _check_counts(path: SourcePath, rows: FeatureRows, several: int) -> None:
    if (rows.counts != several).sum() <= _FEW * len(rows.lines):
        return
    other = np.flatnonzero(rows.counts != rows.counts[0])[0]
    raise UserError(
        f"{path}: line {rows.lines[0]} has {rows.counts[0]} features and line {rows.lines[other]} "
        f"has {rows.counts[other]}, so that none has a field by its place; give each its field, as "
        "field:id:value in a .libffm file"
    )


def _check_single(path: SourcePath, rows: FeatureRows, row_of: np.ndarray, number: int) -> None:
    counts = np.bincount(row_of)
    if (counts > 1).sum() > _FEW * len(rows.lines):
        row = int(np.flatnonzero(counts > 1)[0])
        raise UserError(
            f"{path}, line {rows.lines[row]}: {counts[row]} features of field {number}; a field "
            "may have one in each row"
        )


def _column(
    path: SourcePath, name: str, rows: FeatureRows, row_of: np.ndarray, inside: np.ndarray
) -> tuple[Column, str]:
    """What the features of one field are, and why."""
    ids, values = rows.ids[inside], rows.values[inside]
    share = 1 - len(np.unique(row_of[inside])) / len(rows.lines)
    missing = f", {share:.1%} missing" if share else ""
    different, counts = np.unique(ids, return_counts=True)
    ones = values == 1
    usual = different[counts.argmax()]
    alone = counts.max() >= (1 - _FEW) * len(ids)
    if alone and not ones[ids == usual].all():
        told = f"values from {values.min():g} to {values.max():g} of id {usual}{missing}"
        return Numeric(name, transform="quantile"), told
    if ones.mean() >= 1 - _FEW:
        told = f"{len(different):,} ids from {ids.min()} to {ids.max()}{missing}"
        return Categorical(name, dtype="integer"), told
    other = np.flatnonzero(~ones)[0]
    raise UserError(
        f"{path}, line {rows.lines[row_of[inside[other]]]}: {name} has several ids, and "
        f"{ids[other]}:{values[other]:g} among them; a field may have either ids of value 1, or "
        "one id of any value"
    )
