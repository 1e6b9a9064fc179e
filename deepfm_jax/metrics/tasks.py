"""Metrics of several tasks on the same examples."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped

from deepfm_jax.errors import UserError
from deepfm_jax.metrics.binary import BinaryMetrics

# Metrics that describe the size of a task; they are not averaged over tasks.
_SIZES = ("rows", "positive_rate")


@dataclasses.dataclass(frozen=True, eq=False)
class TaskMetrics:
    """The examples of each task evaluated so far, without those that lack its label.

    Attributes:
      states: The state of each task, by name, in order.
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
          mask: Weights, [B]; 0 for padding. None gives every example the weight 1.
          groups: The group of each example, negative for no group.
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
        """The state of the examples of all ``parts``, which have the same tasks."""
        tasks = parts[0].states if parts else ()
        return cls(
            {
                task: BinaryMetrics.concatenate([part.states[task] for part in parts])
                for task in tasks
            }
        )

    def compute(self, *, split: str = "") -> dict[str, Any]:
        """The metrics (see ``BinaryMetrics.compute``), averaged over tasks.

        With several tasks, each metric is the unweighted mean over them, ``tasks`` has the metrics
        of each task, and ``rows`` is the largest number of examples of any task.

        Args:
          split: Name of the split, for error messages.

        Raises:
          UserError: see ``BinaryMetrics.compute``.
        """
        if not self.states:
            raise UserError(
                f"{split or 'data'} has no examples to evaluate; check its source and filters"
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
    """Flattens ``TaskMetrics.compute`` to ``auc`` and, for several tasks, ``TASK/auc``."""
    for key, value in metrics.items():
        if key != "tasks":
            yield key, value
    for task, of_task in metrics.get("tasks", {}).items():
        yield from ((f"{task}/{key}", value) for key, value in of_task.items())
