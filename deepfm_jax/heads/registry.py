"""From a name and hyperparameters to a head, strictly."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepfm_jax.errors import UserError
from deepfm_jax.heads.head import Head
from deepfm_jax.heads.one_task import OneTask
from deepfm_jax.heads.shared_bottom import SharedBottom

HEADS: dict[str, type[Head]] = {
    "one_task": OneTask,
    "shared_bottom": SharedBottom,
}


def build_head(name: str, tasks: Sequence[str], hyperparameters: Mapping[str, Any]) -> Head:
    """The head ``name`` of ``HEADS`` for some tasks.

    Args:
      name: As in ``HEADS``; empty for ``one_task`` or, with several tasks, ``shared_bottom``.
      tasks: Labels that the run predicts.
      hyperparameters: The head's attributes; those left out keep their defaults.

    Raises:
      UserError: an unknown name or hyperparameter, or a head that does not fit the tasks.
    """
    name = name or ("one_task" if len(tasks) == 1 else "shared_bottom")
    if name not in HEADS:
        raise UserError(f"head.name={name!r} is unknown; use one of {sorted(HEADS)}")
    known = set(HEADS[name].__dataclass_fields__) - {"tasks", "parent", "name"}
    for key in hyperparameters:
        if key not in known:
            raise UserError(
                f"head.{key}: {name} has no such hyperparameter; it has {sorted(known)}"
            )
    head = HEADS[name](tasks=tuple(tasks), **hyperparameters)
    head.check()
    return head
