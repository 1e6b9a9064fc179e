"""Optimizer settings as frozen data."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from deepfm_jax.annotations import (
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
)
from deepfm_jax.errors import UserError


def as_options(options: Any) -> dict[str, Any]:
    """Reads keyword arguments from a mapping, or from a text such as ``"b1=0.8, nesterov=True"``.

    Raises:
      UserError: a text does not have this form.
    """
    if not isinstance(options, str):
        return dict(options)
    try:
        call = ast.parse(f"options({options})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or any(each.arg is None for each in call.keywords):
            raise ValueError("only KEY=VALUE")
        return {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"optimizer options {options!r} must be KEY=VALUE pairs separated by commas, such as "
            f"'b1=0.8, eps=1e-6' ({error})"
        ) from None


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """Optimizer of the rows of one array of the table, on the sparse path.

    Attributes:
      name: A row optimizer (see ``embedding.ROW_OPTIMIZERS``).
      options: Its keyword arguments, as a mapping or as text: ``"b1=0.8, eps=1e-6"``.
      learning_rate: Its peak learning rate; 0 uses the fallback's.
    """

    name: str = ""
    options: Mapping[str, Any] | str = dataclasses.field(default_factory=dict, hash=False)
    learning_rate: NonNegativeFloat = 0.0

    def __post_init__(self):
        object.__setattr__(self, "options", as_options(self.options))


@dataclasses.dataclass(frozen=True)
class Penalties:
    """Lambda of a penalty for each group of parameters (see ``parameter_groups``).

    Attributes:
      table: Vectors of the table, and projections of dense fields.
      first_order: First-order weights; None uses the lambda of ``table``.
      tower: Kernels of towers and of the last linear layers.
      interaction: All other kernels: cross layers, attention, products, gates.
    """

    table: NonNegativeFloat = 0.0
    first_order: NonNegativeFloat | None = None
    tower: NonNegativeFloat = 0.0
    interaction: NonNegativeFloat = 0.0


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Settings of the optimizer of a run.

    Attributes:
      name: Name of an optax optimizer, such as ``adam``, ``adagrad`` or ``lion``.
      options: Its keyword arguments, as a mapping or as text: ``"b1=0.8, eps=1e-6"``.
      table: Path of the embedding table. ``dense``: ``name`` moves every row at every step, as
        optax does. ``sparse``: ``rows`` moves only the rows of the batch. ``auto``: the faster of
        the two, which the run reports (see ``training.table_path``).
      rows: Row optimizer of the vectors on the sparse path; without a name, the row form of
        ``name`` with the same options.
      first_order: Row optimizer of the first-order weights on the sparse path; without a name,
        that of ``rows``.
      learning_rate: Peak learning rate.
      schedule: ``constant``; ``warmup_cosine``: linear over ``warmup_steps``, then a cosine to 0
        at the end of ``loop.epochs``; ``plateau``: multiplied by ``plateau_factor`` after
        evaluations that do not improve, not below ``plateau_floor``. A cut is a factor on the
        updates.
      plateau_patience: Consecutive evaluations without improvement to tolerate before each such
        cut; 0 cuts at every one. A noisy metric cuts the rate too early by chance; in that case
        tolerate one, and set a larger ``loop.patience``.
      clip_norm: Largest global norm of the gradient, penalties included; 0 for no clipping.
      l2: lambda of (lambda / 2) ||W||^2 by group. It is part of the gradient, not decoupled weight
        decay. On the dense path every row of the table decays at every step; on the sparse path a
        row decays only at the steps that touch it, so rare rows decay less and the best lambda is
        larger. Some row optimizers (``ftrl``) have their own penalties and use this lambda there.
      l1: lambda of lambda |W|_1 by group, likewise.
    """

    name: str = "adam"
    options: Mapping[str, Any] | str = dataclasses.field(default_factory=dict, hash=False)
    table: Literal["auto", "dense", "sparse"] = "auto"
    rows: RowSettings = dataclasses.field(default_factory=RowSettings)
    first_order: RowSettings = dataclasses.field(default_factory=RowSettings)
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["constant", "warmup_cosine", "plateau"] = "constant"
    warmup_steps: NonNegativeInt = 0
    plateau_factor: OpenShare = 0.1
    plateau_floor: NonNegativeFloat = 1e-6
    plateau_patience: NonNegativeInt = 0
    clip_norm: NonNegativeFloat = 0.0
    l2: Penalties = Penalties()
    l1: Penalties = Penalties()

    def __post_init__(self):
        object.__setattr__(self, "options", as_options(self.options))
