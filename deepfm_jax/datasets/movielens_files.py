"""Reads the files of the MovieLens releases: ratings, users and movies in original layout."""

import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from deepfm_jax.datasets.files import find_file
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.readers.paths import SourcePath, open_text
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.schema import (
    Categorical,
    Column,
    Ignored,
    Label,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
)

Release: TypeAlias = Literal["100K", "1M", "20M"]

# The file names of each release: ratings, movies, users.
FILES: Mapping[Release, tuple[str, str, str | None]] = {
    "100K": ("u.data", "u.item", "u.user"),
    "1M": ("ratings.dat", "movies.dat", "users.dat"),
    "20M": ("ratings.csv", "movies.csv", None),
}
_LIKED_ABOVE = 3
_NO_GENRES = "(no genres listed)"
_YEAR_OF_TITLE = re.compile(r"\((\d{4})[^()]*\)\s*$")  # "Heat (1995)", "Babylon 5 (1994-1998)"
_YEAR_OF_DATE = re.compile(r"-(\d{4})$")  # "01-Jan-1995"
_SHOWN_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Ratings:
    """Ratings in the order of their file; ``times`` are seconds since 1970."""

    users: Int64[np.ndarray, "ratings"]
    items: Int64[np.ndarray, "ratings"]
    liked: Bool[np.ndarray, "ratings"]
    times: Int64[np.ndarray, "ratings"]


def find_release(source: SourcePath) -> Release:
    """The release whose ratings a folder holds.

    Raises:
      UserError: the folder holds ratings of no release, or of several.
    """
    found: list[Release] = [
        release for release, names in FILES.items() if find_file(source, names[0])
    ]
    if len(found) != 1:
        names = ", ".join(FILES[release][0] for release in found or FILES)
        fault = f"holds {names}; keep one release" if found else f"holds none of {names}"
        raise UserError(f"{source}: {fault} (plain, .gz or .zst)")
    return found[0]


def has_users(source: SourcePath, release: Release) -> bool:
    """Whether the source has the file of users, which 10M, 20M and later releases lack."""
    name = FILES[release][2]
    return name is not None and find_file(source, name) is not None


def read_ratings(
    source: SourcePath, release: Release, max_bad_rows: int, report: RowReport
) -> Ratings:
    """All ratings of a release.

    Raises:
      UserError: a rating lacks its user, item, value or time, or see ``sources.read_tables``.
    """
    path = _needed(source, FILES[release][0])
    schema = _rating_schema(release)
    parts: list[tuple[np.ndarray, ...]] = []
    for table in read_tables(
        path, schema, max_bad_rows=max_bad_rows, labelled=False, report=report
    ):
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count:
                raise UserError(f"{path}: {column.null_count} ratings have no {name}")
        users, items, ratings, times = (column.to_numpy() for column in table.columns)
        parts.append((users, items, ratings > _LIKED_ABOVE, times))
    return Ratings(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _rating_schema(release: Release) -> Schema:
    names = ("user", "item", "rating", "timestamp")
    text = TextFormat("\t", header=False, quoting=False)
    if release == "20M":
        names, text = ("userId", "movieId", "rating", "timestamp"), TextFormat()
    columns: list[Column] = [
        Categorical(names[0], dtype="integer"),
        Categorical(names[1], dtype="integer"),
        Numeric(names[2]),
        Timestamp(names[3], format="unix", parts=()),
    ]
    if release == "1M":
        # "::" between cells is read as two delimiters with an empty cell between them.
        text = TextFormat(":", header=False, quoting=False)
        for place in (3, 2, 1):
            columns.insert(place, Ignored(f"between {place} and {place + 1}"))
    return Schema((*columns, Label("label")), text)  # The files have no label column.


def read_users(source: SourcePath, release: Release) -> pa.Table:
    """``id``, ``age``, ``gender``, ``occupation`` and ``zip_area`` of each user, sorted by id.

    The area is the first three characters of the zip code.

    Raises:
      UserError: the file or a line of it cannot be read.
    """
    name = FILES[release][2]
    assert name is not None
    path = _needed(source, name)
    rows = []
    for line, cells in _lines(path, "|" if release == "100K" else "::", 5):
        user, age, gender, occupation, code = cells
        if release == "1M":
            age, gender = gender, age
        numbers = {"id": _whole(path, line, user), "age": _whole(path, line, age)}
        rows.append({**numbers, "gender": gender, "occupation": occupation, "zip_area": code[:3]})
    return pa.Table.from_pylist(rows).sort_by("id")


def read_movies(source: SourcePath, release: Release) -> pa.Table:
    """``id``, ``year`` (of release; null if unknown) and ``genres`` of each movie, sorted by id.

    Raises:
      UserError: the file or a line of it cannot be read.
    """
    path = _needed(source, FILES[release][1])
    ids, years, genres = [], [], []
    if release == "100K":
        known = [cells[0] for _, cells in _lines(_needed(source, "u.genre"), "|", 2)]
        for line, cells in _lines(path, "|", 5 + len(known)):
            ids.append(_whole(path, line, cells[0]))
            years.append(_year(_YEAR_OF_DATE, cells[2]) or _year(_YEAR_OF_TITLE, cells[1]))
            genres.append([g for g, flag in zip(known, cells[5:], strict=True) if flag == "1"])
    else:
        lines = _csv_lines(path) if release == "20M" else _lines(path, "::", 3)
        for line, (movie, title, listed) in lines:
            ids.append(_whole(path, line, movie))
            years.append(_year(_YEAR_OF_TITLE, title))
            genres.append([g for g in listed.split("|") if g and g != _NO_GENRES])
    columns = {
        "id": pa.array(ids, pa.int64()),
        "year": pa.array(years, pa.int64()),
        "genres": pa.array(genres, pa.list_(pa.string())),
    }
    return pa.table(columns).sort_by("id")


def _needed(source: SourcePath, name: str) -> SourcePath:
    path = find_file(source, name)
    if path is None:
        raise UserError(f"{source}: {name} is missing (plain, .gz or .zst)")
    return path


def _year(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text.strip())
    return int(found[1]) if found else None


def _whole(path: SourcePath, line: int, cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise UserError(f"{path}, line {line}: {cell!r} is not a whole number") from None


def _content(path: SourcePath) -> str:
    """The text of a small file, as Latin-1, because its non-ASCII characters are not used.

    Raises:
      UserError: the file cannot be read or is empty.
    """
    try:
        with open_text(path) as stream:
            content = stream.read().decode("latin-1")
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); is it truncated?") from None
    if not content.strip():
        raise UserError(f"{path}: the file is empty")
    return content


def _lines(path: SourcePath, separator: str, width: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_content(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if line:
            yield number, _of_width(path, number, line.split(separator), width)


def _csv_lines(path: SourcePath) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_content(path)))
    header = next(reader)
    if header != ["movieId", "title", "genres"]:
        raise UserError(f"{path}, line 1: has {', '.join(header)}, not movieId, title, genres")
    for cells in reader:
        if cells:
            yield reader.line_num, _of_width(path, reader.line_num, cells, 3)


def _of_width(path: SourcePath, line: int, cells: list[str], width: int) -> list[str]:
    if len(cells) != width:
        shown = "|".join(cells)[:_SHOWN_CHARACTERS]
        raise UserError(f"{path}, line {line}: {len(cells)} cells instead of {width} in {shown!r}")
    return cells
