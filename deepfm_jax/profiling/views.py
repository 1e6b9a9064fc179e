"""How a report describes values and compares splits: as categories, numbers or times."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.profiling.counts import ValueCounts
from deepfm_jax.profiling.coverage import known_share, with_value
from deepfm_jax.profiling.drift import edge_bins, hour_bins, value_bins
from deepfm_jax.profiling.groups import Group, groups_by
from deepfm_jax.profiling.numbers import describe_numbers, number_text

_TOP = 20
_EPOCH = datetime.datetime(1970, 1, 1)
_SECONDS_OF_HOUR = 3600


class View:
    """Describes values as categories: the most frequent ones by name.

    Attributes:
      counted: Counts of the training rows.
      values: The same as a table (``value`` and ``COUNTS``), without missing cells.
      total: Number of training rows.
    """

    def __init__(self, counted: ValueCounts, values: pa.Table, total: int):
        self.counted, self.values, self.total = counted, values, total

    def details(self) -> dict[str, Any]:
        """Describes the training rows, as attributes of ``columns.ColumnReport``."""
        top = self.values.sort_by([("rows", "descending"), ("value", "ascending")]).slice(0, _TOP)
        named = tuple(
            Group.of(
                _named(row["value"]), row["rows"], row["labelled"], row["positives"], self.total
            )
            for row in top.to_pylist()
        )
        return {"top": named}

    def bins(self, train: pa.Table, counts: pa.Table) -> np.ndarray:
        """Counts a split's rows in the bins that compare it with the training rows, [bins].

        Args:
          train: Counts of the training rows.
          counts: Counts of the split.
        """
        return value_bins(train, counts)

    def unseen(self, train: pa.Table, other: pa.Table) -> float | None:
        """The share of a split's rows with a value whose value is not in the training rows.

        None if the share would be meaningless.
        """
        return 1 - known_share(with_value(other), train["value"].combine_chunks())


class NumberView(View):
    """Describes numbers by their distribution; outside the training range, they are unseen."""

    def __init__(self, counted: ValueCounts, values: pa.Table, total: int):
        super().__init__(counted, values, total)
        self._numbers = describe_numbers(values) if values.num_rows else None

    def details(self) -> dict[str, Any]:
        return {**super().details(), "numbers": self._numbers}

    def bins(self, train: pa.Table, counts: pa.Table) -> np.ndarray:
        return edge_bins(() if self._numbers is None else self._numbers.edges, counts)

    def unseen(self, train: pa.Table, other: pa.Table) -> float | None:
        other = with_value(other)
        total = rows_of(other)
        if not total:
            return 0.0
        if self._numbers is None:
            return 1.0
        values, ends = other["value"].to_numpy(), self._numbers.percentiles
        outside = (values < ends[0]) | (values > ends[-1])
        return float(other["rows"].to_numpy()[outside].sum() / total)


class TimeView(View):
    """Describes hours since 1970, by hour of the day and by date; later times are always unseen."""

    def details(self) -> dict[str, Any]:
        if self.counted.first is None or self.counted.last is None:
            return {}
        hours = self.values["value"].to_numpy()
        dates = hours // 24
        # Dates without rows are left out: between two distant dates there would be many.
        found, keys = np.unique(dates, return_inverse=True)
        names = [f"{_time(int(date) * 24 * _SECONDS_OF_HOUR):%Y-%m-%d}" for date in found]
        of_day = [f"{hour:02}" for hour in range(24)]
        return {
            "first": _time(self.counted.first).isoformat(sep=" "),
            "last": _time(self.counted.last).isoformat(sep=" "),
            "hours": groups_by(hours % 24, self.values, of_day, self.total),
            "days": groups_by(keys, self.values, names, self.total),
        }

    def bins(self, train: pa.Table, counts: pa.Table) -> np.ndarray:
        return hour_bins(counts)

    def unseen(self, train: pa.Table, other: pa.Table) -> float | None:
        return None


# The keys are the values of ``Column.profile``.
VIEWS: dict[str, type[View]] = {"values": View, "numbers": NumberView, "times": TimeView}


def rows_of(counts: pa.Table) -> int:
    """Total number of rows counted."""
    return pc.sum(counts["rows"]).as_py() or 0


def _named(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def _time(seconds: int | float) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=seconds)
