"""Dense optimizers: any optax optimizer by its name and keyword arguments."""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from deepfm_jax.errors import UserError, one_line, suggest

# What functions of optax that take a learning rate are, by prefix, if they cannot train here.
_UNSUITED = {
    "schedule_free": "an optimizer that evaluates other weights than it trains",
    "scale_by_": "a part of an optimizer",
}
# Shapes that every optimizer must train: those of a kernel and of a model's bias.
_SHAPES = ((2, 3), ())


def create_dense(
    name: str, options: Mapping[str, Any], rate: optax.ScalarOrSchedule, where: str = "optimizer"
) -> optax.GradientTransformation:
    """Creates ``optax.NAME(learning_rate=rate, **options)``.

    Args:
      name: A function of ``optax`` or ``optax.contrib`` with a ``learning_rate``.
      options: Its other keyword arguments.
      rate: Learning rate, or a schedule, which not every optimizer takes.
      where: Key of the settings, for messages.

    Raises:
      UserError: the name or an option is unknown, optax refuses a value, or the optimizer needs
        more than the gradients of a batch and the parameters, or evaluates other weights.
    """
    for prefix, kind in _UNSUITED.items():
        if name.startswith(prefix):
            raise UserError(f"{where}.name={name!r} is {kind}; use another")
    factories = _factories()
    if name not in factories:
        hint = suggest(name, factories)
        raise UserError(
            f"{where}.name={name!r} is not an optax optimizer with a learning_rate; {hint}"
        )
    check_options(name, factories[name], options, where)
    shape = None
    try:
        optimizer = factories[name](learning_rate=rate, **options)
        for shape in _SHAPES:
            _check_update(optimizer, shape)
    except Exception as error:  # Whatever optax raises for a wrong or missing argument.
        scalar = " a scalar" if shape == () else ""
        schedule = " with a learning rate schedule" if callable(rate) else ""
        raise UserError(
            f"{where}.name={name!r} with {where}.options={dict(options)!r} cannot train{scalar} "
            f"here{schedule}: {type(error).__name__}: {one_line(error)[:200]}"
        ) from None
    return optimizer


def _check_update(optimizer: optax.GradientTransformation, shape: tuple[int, ...]) -> None:
    """Checks that a parameter has an update of its own shape, and a state that can be stored.

    Raises:
      ValueError: the shapes differ, as they do where the optimizer itself sums over examples; or
        the state has an array without elements.
      Exception: whatever optax raises.
    """

    def first_step(weights):
        state = optimizer.init(weights)
        return optimizer.update(weights, state, weights)[0], state

    update, state = jax.eval_shape(first_step, jnp.zeros(shape))
    if update.shape != shape:
        raise ValueError(f"a parameter of shape {shape} would have an update of {update.shape}")
    if not all(leaf.size for leaf in jax.tree.leaves(state)):
        raise ValueError("its state has an array without elements, which no checkpoint can hold")


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


def check_options(
    name: str, factory: Callable[..., Any], options: Mapping[str, Any], where: str
) -> None:
    """Checks that the factory of the optimizer ``name`` accepts the options.

    Raises:
      UserError: an option is unknown.
    """
    known = [key for key in inspect.signature(factory).parameters if key != "learning_rate"]
    for key in options:
        if key not in known:
            raise UserError(
                f"{where}.options has {key!r}, which is not an option of {name}; "
                f"{suggest(key, known)}"
            )


def _factories() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Optax optimizers by name; ``optax`` takes precedence over ``optax.contrib``."""
    found: dict[str, Callable[..., optax.GradientTransformation]] = {}
    for module in (optax.contrib, optax):
        for name, factory in vars(module).items():
            # Nadam is a partial application of Adam.
            is_function = isinstance(factory, types.FunctionType | functools.partial)
            if name.startswith(("_", *_UNSUITED)) or not is_function:
                continue
            if "learning_rate" in inspect.signature(factory).parameters:
                found[name] = factory
    return {name: found[name] for name in sorted(found)}
