"""MovieLens ratings as clicks, in the original layouts of the releases."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.histories import Histories, past_items
from deepfm_jax.datasets.movielens_files import (
    FILES,
    Ratings,
    find_release,
    has_users,
    read_movies,
    read_ratings,
    read_users,
)
from deepfm_jax.datasets.splitting import ReadSplit, split_by_time
from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import SourcePath
from deepfm_jax.readers.row_checker import RejectedRow, RowReport
from deepfm_jax.readers.sources import typed_table
from deepfm_jax.schema import (
    Categorical,
    History,
    Label,
    MultiValued,
    Numeric,
    Schema,
    Timestamp,
)

_CHUNK_ROWS = 1 << 16
_OF_USERS = ("age", "gender", "occupation", "zip_area")
_TIME, _HISTORY = "timestamp", "history"


@dataclasses.dataclass(frozen=True)
class _Release:
    """The content of a release's files, and the report and bad rows of its ratings."""

    ratings: Ratings
    histories: Histories
    movies: pa.Table
    users: pa.Table | None
    report: RowReport
    rejected: list[RejectedRow]


class MovieLens(ClickLogBuilder, skip_registration=True):
    """MovieLens: whether a user rates a movie above 3; up to 11 fields, two with several values.

    Reads the files of the 100K release (``u.data``, ``u.item``, ``u.genre``, ``u.user``), of 1M
    (``ratings.dat``, ``movies.dat``, ``users.dat``) or of 20M and similar ones (``ratings.csv``,
    ``movies.csv``), plain, ``.gz`` or ``.zst``. Without a file of users, there are no columns for
    their age, gender, occupation and zip area.

    ``history`` holds the newest 50 (``options.history_length``) movies that the user rated above 3
    at strictly earlier times, since a click log only knows a user's clicks. It shares the
    vocabulary of ``item``; an empty history has its own id.

    Rows are split 80/10/10 by time. Much of the literature, such as AutoInt, splits MovieLens at
    random, which histories rule out: the history of a training row would leak labels of test rows.
    Metrics are therefore not comparable with theirs.

    Source: Harper and Konstan 2015, The MovieLens Datasets; ratings of 4 and 5 as clicks by Zhou et
      al. 2018, DIN (arXiv 1706.06978). In releases with half stars, 3.5 is a click too.
    """

    name = "movielens"
    SCHEMA = Schema(
        columns=(
            Label("label"),
            Categorical("user", dtype="integer", min_count=2),
            Categorical("item", dtype="integer", min_count=2, separate_missing=True),
            Numeric("age", transform="quantile", buckets=10),
            *(Categorical(name, min_count=2) for name in _OF_USERS[1:]),
            Categorical("year", dtype="integer", min_count=2),
            MultiValued("genres", max_length=10),
            Timestamp(_TIME, format="unix", parts=("hour", "weekday")),
            History(_HISTORY, dtype="integer", max_length=50, shares_with="item"),
        )
    )

    def _schema_of_source(self) -> Schema:
        source = self._folder
        schema = self.SCHEMA
        if not has_users(source, find_release(source)):
            columns = tuple(c for c in schema.columns if c.name not in _OF_USERS)
            schema = dataclasses.replace(schema, columns=columns)
        return self.options.apply(schema)

    @property
    def _folder(self) -> SourcePath:
        assert self.source is not None  # ``prepare`` ensures it.
        return self.source

    @functools.cached_property
    def _release(self) -> _Release:
        """All files, read once; memory grows with the ratings, not with the histories."""
        source, release = self._folder, find_release(self._folder)
        rejected: list[RejectedRow] = []
        report = RowReport(on_rejected=rejected.append)
        ratings = read_ratings(source, release, self.options.max_bad_rows, report)
        history = next(field for field in self.schema.fields if field.name == _HISTORY)
        return _Release(
            ratings=ratings,
            histories=past_items(
                ratings.users, ratings.times, ratings.items, ratings.liked, history.slots
            ),
            movies=read_movies(source, release),
            users=read_users(source, release) if has_users(source, release) else None,
            report=report,
            rejected=rejected,
        )

    def read_splits(self) -> dict[str, ReadSplit]:
        if self.options.time_column not in (None, _TIME):
            raise UserError(
                f"time_column {self.options.time_column!r}: rows of movielens are split by "
                f"{_TIME!r}; by any other column, histories would leak labels of later splits"
            )
        splits = split_by_time(self._row_numbers, self.schema, _TIME, self._passes)
        return {split: functools.partial(self._rows, read) for split, read in splits.items()}

    def _row_numbers(self, report: RowReport | None) -> Iterator[pa.Table]:
        """The position and time of each rating, which is all that splitting needs."""
        read = self._release
        if report is not None:
            for name in ("read", "kept", "rejected", "first_errors"):
                setattr(report, name, getattr(read.report, name))
            if report.on_rejected is not None:
                for row in read.rejected:
                    report.on_rejected(row)
        times = read.ratings.times
        for start in range(0, len(times), _CHUNK_ROWS):
            some = times[start : start + _CHUNK_ROWS]
            yield pa.table({"row": np.arange(start, start + len(some)), _TIME: some})

    def _rows(self, read: ReadSplit, report: RowReport | None) -> Iterator[pa.Table]:
        """The ratings of a split with their features, in file order."""
        for numbers in read(report):
            yield self._features(self._release, numbers["row"].to_numpy())

    def _features(self, read: _Release, rows: np.ndarray) -> pa.Table:
        ratings = read.ratings
        users, items = ratings.users[rows], ratings.items[rows]
        columns: dict[str, object] = {
            "label": ratings.liked[rows].astype(np.float32),
            "user": users,
            "item": items,
            _TIME: ratings.times[rows],
            _HISTORY: read.histories.lists(rows),
        }
        movies = self._known(read.movies, items, "movie", 1)
        columns |= {name: movies[name] for name in ("year", "genres")}
        if read.users is not None:
            people = self._known(read.users, users, "user", 2)
            columns |= {name: people[name] for name in _OF_USERS}
        return typed_table(columns, self.schema, labelled=True)

    def _known(self, table: pa.Table, ids: np.ndarray, kind: str, file: int) -> pa.Table:
        """The rows of ``table`` with these ids.

        Raises:
          UserError: an id is not in ``table``.
        """
        known = table["id"].to_numpy()
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        unknown = ids[known[places] != ids]
        if len(unknown):
            names = FILES[find_release(self._folder)]
            raise UserError(
                f"{self._folder}: {names[0]} refers to {kind} {unknown[0]}, which "
                f"{names[file]} does not have; are they from the same release?"
            )
        return table.take(pa.array(places))
