"""Dense optimizers: any optax optimizer by its name and keyword arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from deepfm_jax.errors import UserError, suggest

# Optimizers that evaluate with other weights than they train.
_OTHER_WEIGHTS = ("schedule_free",)


def create_dense(
    name: str, options: Mapping[str, Any], rate: optax.ScalarOrSchedule, where: str = "optimizer"
) -> optax.GradientTransformation:
    """Creates ``optax.NAME(learning_rate=rate, **options)``.

    Args:
      name: A function of ``optax`` or ``optax.contrib`` with a ``learning_rate``.
      options: Its other keyword arguments.
      rate: Learning rate or schedule.
      where: Key of the settings, for messages.

    Raises:
      UserError: the name or an option is unknown, optax refuses a value, or the optimizer needs
        more than gradients and parameters.
    """
    factories = _factories()
    if name not in factories:
        hint = suggest(name, factories)
        raise UserError(f"{where}.name={name!r} is not an optax optimizer; {hint}")
    check_options(factories[name], options, where)
    try:
        optimizer = factories[name](learning_rate=rate, **options)
        shapes = {"w": jnp.zeros((2, 2))}
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), shapes)
    except Exception as error:  # Whatever optax raises for a wrong or missing argument.
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}.name={name!r} with {where}.options={dict(options)!r} cannot train here: "
            f"{type(error).__name__}: {cause}"
        ) from None
    return optimizer


def check_linear(name: str, options: Mapping[str, Any], where: str = "optimizer") -> None:
    """Checks that updates are proportional to the learning rate, as the plateau schedule assumes.

    Raises:
      UserError: the updates are not proportional to the learning rate.
    """
    rates = (0.5, 0.25)
    whole, half = (_factories()[name](learning_rate=rate, **options) for rate in rates)
    params = {"w": jnp.asarray([[0.3, -0.7], [1.1, 0.2]])}
    grads = [jax.tree.map(lambda w, k=k: jnp.sin(3.0 * w + k), params) for k in range(3)]
    state = whole.init(params)
    for gradient in grads[:-1]:
        _, state = whole.update(gradient, state, params)
    updates = [each.update(grads[-1], state, params) for each in (whole, half)]
    expected = (jax.tree.map(lambda update: 0.5 * update, updates[0][0]), updates[0][1])
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(updates[1]), strict=True)
    if not all(jnp.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in pairs):
        raise UserError(
            f"{where}.schedule='plateau' scales updates, which for {name!r} differs from a lower "
            f"learning rate; use another {where}.schedule"
        )


def check_options(factory: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Checks that a factory accepts the options.

    Raises:
      UserError: an option is unknown.
    """
    known = [key for key in inspect.signature(factory).parameters if key != "learning_rate"]
    for key in options:
        if key not in known:
            raise UserError(
                f"{where}.options has {key!r}, which is not an option of {factory.__name__}; "
                f"{suggest(key, known)}"
            )


def _factories() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Optax optimizers by name; ``optax`` takes precedence over ``optax.contrib``."""
    found: dict[str, Callable[..., optax.GradientTransformation]] = {}
    for module in (optax.contrib, optax):
        for name, function in vars(module).items():
            if name.startswith(("_", *_OTHER_WEIGHTS)) or not inspect.isfunction(function):
                continue
            if "learning_rate" in inspect.signature(function).parameters:
                found[name] = function
    return {name: found[name] for name in sorted(found)}
