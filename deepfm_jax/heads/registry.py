"""Builds heads by name, with strict checks of their hyperparameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepfm_jax.heads.head import Head
from deepfm_jax.heads.one_task import OneTask
from deepfm_jax.heads.shared_bottom import SharedBottom
from deepfm_jax.hyperparameters import build_module

HEADS: dict[str, type[Head]] = {
    "one_task": OneTask,
    "shared_bottom": SharedBottom,
}


def build_head(name: str, tasks: Sequence[str], hyperparameters: Mapping[str, Any]) -> Head:
    """Builds the head ``name`` of ``HEADS`` for some tasks.

    Args:
      name: A key of ``HEADS``; empty for ``one_task`` or, with several tasks, ``shared_bottom``.
      tasks: Labels that the run predicts.
      hyperparameters: The head's attributes; missing ones keep their defaults.

    Raises:
      UserError: the head does not fit the tasks, or see ``hyperparameters.build_module``.
    """
    name = name or ("one_task" if len(tasks) == 1 else "shared_bottom")
    return build_module(HEADS, "head", name, hyperparameters, tasks=tuple(tasks))
