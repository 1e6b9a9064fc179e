"""Which values the settings of a run may have."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Range:
    """Numbers that a setting may have.

    Attributes:
      told: Which, in words.
      holds: Whether a finite number is one of them.
      whole: Whether they are whole numbers.
      optional: Whether None is allowed too.
    """

    told: str
    holds: Callable[[Any], bool]
    whole: bool = False
    optional: bool = False

    def check(self, key: str, value: Any) -> None:
        """Raises UserError unless ``value`` of the setting ``key`` is in the range."""
        if value is None and self.optional:
            return
        # Infinity is above 0 and would pass; a comparison with NaN is false, whatever it asks.
        is_number = isinstance(value, numbers.Integral if self.whole else numbers.Real)
        if not (is_number and math.isfinite(value) and self.holds(value)):
            raise UserError(f"{key}={value!r}: allowed are {self.told}")


_ABOVE_0 = _Range("finite numbers above 0", lambda x: x > 0)
_AT_LEAST_0 = _Range("finite numbers of at least 0", lambda x: x >= 0)
_NONE_OR_AT_LEAST_0 = dataclasses.replace(
    _AT_LEAST_0, told=f"None and {_AT_LEAST_0.told}", optional=True
)
_BETWEEN_0_AND_1 = _Range("numbers above 0 and below 1", lambda x: 0 < x < 1)
_COUNT = _Range("whole numbers of at least 1", lambda x: x >= 1, whole=True)
_COUNT_OR_0 = _Range("whole numbers of at least 0", lambda x: x >= 0, whole=True)
# NumPy takes none below, JAX none above.
_SEED = _Range("whole numbers from 0 to 2^63 - 1", lambda x: 0 <= x < 2**63, whole=True)

_RANGES = {
    "optimizer.learning_rate": _ABOVE_0,
    "optimizer.rows.learning_rate": _AT_LEAST_0,
    "optimizer.first_order.learning_rate": _AT_LEAST_0,
    "optimizer.warmup_steps": _COUNT_OR_0,
    "optimizer.plateau_factor": _BETWEEN_0_AND_1,
    "optimizer.plateau_floor": _AT_LEAST_0,
    "optimizer.plateau_patience": _COUNT_OR_0,
    # A negative norm would turn the gradient round, and a negative lambda reward large weights.
    "optimizer.clip_norm": _AT_LEAST_0,
    **{
        f"optimizer.{penalty}.{group}": _NONE_OR_AT_LEAST_0
        if group == "first_order"
        else _AT_LEAST_0
        for penalty in ("l1", "l2")
        for group in ("table", "first_order", "tower", "interaction")
    },
    "loop.batch_size": _COUNT,
    "loop.epochs": _COUNT,
    "loop.patience": _COUNT_OR_0,
    "loop.min_improvement": _AT_LEAST_0,
    "loop.evaluations_per_epoch": _COUNT,
    "loop.checkpoint_steps": _COUNT,
    "loop.log_steps": _COUNT,
    "loop.eval_batch_size": _COUNT,
    "loop.streams": _COUNT_OR_0,
}

_CHOICES = {
    "optimizer.table": ("auto", "dense", "sparse"),
    "optimizer.schedule": ("constant", "warmup_cosine", "plateau"),
    "loop.monitor": ("auc", "logloss"),
}


def check_seed(seed: Any) -> None:
    """Raises UserError unless ``seed`` is one that both NumPy and JAX take."""
    _SEED.check("seed", seed)


def check_stage(stage: Any, prefix: str = "") -> None:
    """Checks what a run and a stage before it both have: a model, an optimizer, a loop.

    Args:
      stage: An ``Experiment`` or a ``Pretraining``.
      prefix: Where it stands in the config, for messages: ``"pretraining."``.

    Raises:
      UserError: no model, a value out of its range, or two that do not go together.
    """
    if "name" not in stage.model:
        raise UserError(f"{prefix}model.name is missing; name one of deepfm_jax.MODELS")

    for key, choices in _CHOICES.items():
        check_choice(f"{prefix}{key}", operator.attrgetter(key)(stage), choices)
    for key, allowed in _RANGES.items():
        allowed.check(f"{prefix}{key}", operator.attrgetter(key)(stage))
    streams, batch_size = stage.loop.streams, stage.loop.batch_size
    if streams and batch_size % streams:
        raise UserError(
            f"{prefix}loop.streams={streams} must split {prefix}loop.batch_size={batch_size} evenly"
        )
    waits, patience = stage.optimizer.plateau_patience, stage.loop.patience
    if stage.optimizer.schedule == "plateau" and 0 < patience <= waits:
        raise UserError(
            f"{prefix}optimizer.plateau_patience={waits} must be below {prefix}loop.patience="
            f"{patience}, or the run ends before the first cut"
        )


def check_choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises UserError unless a setting's value is one of several."""
    if value not in choices:
        raise UserError(f"{key}={value!r} is unknown; use one of {choices}")
