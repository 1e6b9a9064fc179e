"""Metrics of several tasks on the same rows."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from deepfm_jax.errors import UserError
from deepfm_jax.metrics.binary import BinaryMetrics

# Metrics that say how large a task is, and have no mean over tasks.
_SIZES = ("rows", "positive_rate")


@dataclasses.dataclass(frozen=True, eq=False)
class TaskMetrics:
    """The rows that were evaluated so far, of each task; rows without its label are left out.

    Attributes:
      states: By the names of the tasks, in their order.
    """

    states: Mapping[str, BinaryMetrics]

    @classmethod
    def from_batch(
        cls,
        tasks: Sequence[str],
        logits: Shaped[Any, "batch tasks"],
        labels: Shaped[Any, "batch tasks"],
        mask: Shaped[Any, "batch"] | None = None,
        groups: Int64[np.ndarray, "batch"] | None = None,
    ) -> "TaskMetrics":
        """The state of one batch; see ``BinaryMetrics.from_batch``.

        Args:
          tasks: T names.
          logits: [B, T].
          labels: 0 or 1, or NaN for a missing label, [B, T].
          mask: Weights, [B]; 0 for padding. None for rows that all count once.
          groups: The group of each row, negative for none.
        """
        logits, labels = np.asarray(logits), np.asarray(labels)
        weights = np.ones(len(logits)) if mask is None else np.asarray(mask)
        states = {}
        for index, task in enumerate(tasks):
            of_task = labels[:, index]
            own = np.where(np.isnan(of_task), 0.0, weights)
            states[task] = BinaryMetrics.from_batch(logits[:, index], of_task, own, groups)
        return cls(states)

    @classmethod
    def concatenate(cls, parts: Sequence["TaskMetrics"]) -> "TaskMetrics":
        """The state of the rows of all ``parts``, which have the same tasks."""
        tasks = parts[0].states if parts else ()
        return cls(
            {
                task: BinaryMetrics.concatenate([part.states[task] for part in parts])
                for task in tasks
            }
        )

    def compute(self, *, split: str = "") -> dict[str, Any]:
        """The metrics of one task (see ``BinaryMetrics.compute``).

        Of several tasks the unweighted mean of each metric over them, and those of each task under
        ``tasks``. ``rows`` then is the largest number of rows that a task has.

        Args:
          split: Name of the rows, for error messages.

        Raises:
          UserError: see ``BinaryMetrics.compute``.
        """
        if not self.states:
            raise UserError(
                f"{split or 'data'} has no rows to evaluate; check its source and filters"
            )
        if len(self.states) == 1:
            (state,) = self.states.values()
            return state.compute(split=split)
        by_task = {
            task: state.compute(split=f"{split}, label {task}")
            for task, state in self.states.items()
        }
        first, *others = by_task.values()
        common = [key for key in first if all(key in other for other in others)]
        means: dict[str, Any] = {
            key: float(np.mean([metrics[key] for metrics in by_task.values()]))
            for key in common
            if key not in _SIZES
        }
        means["rows"] = max(metrics["rows"] for metrics in by_task.values())
        return {**means, "tasks": by_task}


def flat_metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What ``TaskMetrics.compute`` returns as ``auc`` and, of several tasks, ``TASK/auc``."""
    for key, value in metrics.items():
        if key != "tasks":
            yield key, value
    for task, of_task in metrics.get("tasks", {}).items():
        yield from ((f"{task}/{key}", value) for key, value in of_task.items())
