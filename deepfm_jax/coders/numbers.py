"""Numbers as the values of one id, and the statistics of training values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.coder import FieldCoder


@dataclasses.dataclass(frozen=True)
class NumberCoder(FieldCoder):
    """A field of numbers, fitted by the mean and the standard deviation of the training rows."""

    IS_FITTED: ClassVar[bool] = True

    @classmethod
    def fit(cls, field: Any, counts: pa.Table) -> FieldCoder:
        empty = super().fit(field, counts)
        numbers, weights = counts["value"].to_numpy(), counts["count"].to_numpy()
        if not len(numbers):
            return empty
        # Equal numbers, such as 0 and -0, are sorted by count: sums must not depend on row order.
        order = np.lexsort((weights, numbers))
        numbers, weights = numbers[order], weights[order]
        total = int(weights.sum())
        mean = float(np.dot(numbers, weights) / total)
        std = math.sqrt(float(np.dot((numbers - mean) ** 2, weights) / total)) or 1.0
        edges = cls.edges_of(field, numbers, weights)
        return dataclasses.replace(empty, edges=edges, mean=mean, std=std)

    @classmethod
    def edges_of(cls, field: Any, numbers: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
        """Inner bucket edges for ascending numbers, each occurring in ``weights`` training rows."""
        del field, numbers, weights
        return ()


@dataclasses.dataclass(frozen=True)
class ValueCoder(NumberCoder):
    """One id for all numbers, with the transformed number as value; a missing cell has id 0."""

    @property
    def dim(self) -> int:
        return 2

    def encode_each(self, cells: pa.Array, ids: np.ndarray, values: np.ndarray | None) -> None:
        assert values is not None  # This is a value field, so the schema has values.
        missing = pc.is_null(cells).to_numpy(zero_copy_only=False)
        numbers = cells.to_numpy(zero_copy_only=False)
        values[:] = np.where(missing, 1.0, self.transformed(numbers))
        super().encode_each(cells, ids, values)

    def value_ids(self, cells: pa.Array) -> np.ndarray:
        return np.ones(len(cells), np.int32)

    def transformed(self, numbers: np.ndarray) -> np.ndarray:
        """Transforms numbers, [rows] to [rows]; NaN stays NaN."""
        raise NotImplementedError(f"{type(self).__name__} transforms no numbers")


@dataclasses.dataclass(frozen=True)
class LogCoder(ValueCoder):
    """sign(x) ln(1 + abs(x))."""

    def transformed(self, numbers: np.ndarray) -> np.ndarray:
        return np.sign(numbers) * np.log1p(np.abs(numbers))


@dataclasses.dataclass(frozen=True)
class StandardCoder(ValueCoder):
    """(x - mean) / std of the training rows."""

    def transformed(self, numbers: np.ndarray) -> np.ndarray:
        return (numbers - self.mean) / self.std
