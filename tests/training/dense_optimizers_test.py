"""Every optimizer of optax trains here as it does there, or is refused with the reason."""

import inspect

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from deepfm_jax import UserError
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings

PARAMS = {"w": jnp.asarray([0.5, -2.0])}
GRADS = {"w": jnp.asarray([0.1, 3.0])}
# What the message says of each optimizer that cannot train here; the comments say why it cannot.
REFUSED = {
    "dpsgd": r"shape \(2, 3\) would have an update of \(3,\)",  # Clips gradients of each example.
    "galore": "an array without elements",  # Its projection of a parameter that is not a matrix.
    "lbfgs": "missing 3 required .* 'value_fn'",  # Its line search computes the loss again.
    "momo": "value",  # Its step size follows from the loss.
    "momo_adam": "missing 1 required .* 'value'",
    "polyak_sgd": "not an optax optimizer with a learning_rate",  # Its step follows from the loss.
    "scale_by_learning_rate": "is a part of an optimizer",
    "scale_by_madgrad": "is a part of an optimizer",
    "scale_by_rprop": "is a part of an optimizer",  # By itself it ascends.
    "schedule_free": "evaluates other weights than it trains",  # Scoring reads the trained ones.
    "schedule_free_adamw": "evaluates other weights than it trains",
    "schedule_free_sgd": "evaluates other weights than it trains",
    "sm3": "cannot train a scalar here: IndexError",  # Models have a scalar bias.
    "sophia": "obj_fn must be provided",  # Computes the loss again for its curvature.
}
NEEDED = {"dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0}}


def exported():
    """The functions of optax with a learning rate, by name, which is another one in polyak_sgd."""
    found = {"polyak_sgd": optax.polyak_sgd}
    for module in (optax.contrib, optax):
        for name, member in vars(module).items():
            is_function = inspect.isroutine(member) or hasattr(member, "func")
            if name.startswith("_") or not is_function:
                continue
            if "learning_rate" in inspect.signature(member).parameters:
                found[name] = member
    return found


EXPORTED = exported()
# Optax warns of arguments and optimizers that a later version may not have.
pytestmark = pytest.mark.filterwarnings("ignore:Specifying a key", "ignore::DeprecationWarning")


def updates_of(optimizer):
    """The updates of three steps."""
    state, params, found = optimizer.init(PARAMS), PARAMS, []
    for _ in range(3):
        updates, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
        found.append(updates)
    return found


@pytest.mark.parametrize("name", sorted(EXPORTED.keys() - REFUSED.keys()))
def test_an_optimizer_of_optax_trains_as_it_does_there(name):
    found = create_optimizer(OptimizerSettings(name, learning_rate=0.01), 1, "dense").dense
    updates = updates_of(found)
    chex.assert_trees_all_equal(updates, updates_of(EXPORTED[name](learning_rate=0.01)))
    chex.assert_tree_all_finite(updates)
    assert all(leaf.any() for leaf in jax.tree.leaves(updates[-1]))


@pytest.mark.parametrize("name", sorted(EXPORTED.keys() & REFUSED.keys()))
def test_an_optimizer_that_needs_more_than_gradients_is_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"name={name!r} .*{REFUSED[name]}") as refusal:
        create_optimizer(OptimizerSettings(name, NEEDED.get(name, {})), 1, "dense")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["rprop", "optimistic_adam"])
def test_an_optimizer_without_schedules_is_refused_under_one(name):
    settings = OptimizerSettings(name, schedule="warmup_cosine")
    with pytest.raises(UserError, match=f"{name!r} .* cannot train here with a .* schedule"):
        create_optimizer(settings, 1, "dense")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("adam", "b1=0.5, eps=1e-3", optax.adam(0.01, b1=0.5, eps=1e-3)),
        ("adagrad", {"initial_accumulator_value": 0.0}, optax.adagrad(0.01, 0.0)),
        ("lion", {"weight_decay": 0.1}, optax.lion(0.01, weight_decay=0.1)),
        ("sgd", "momentum=0.9, nesterov=True", optax.sgd(0.01, 0.9, nesterov=True)),
        ("nadam", "b1=0.8", optax.nadam(0.01, b1=0.8)),
    ],
)
def test_options_are_the_keyword_arguments_of_optax(name, options, expected):
    settings = OptimizerSettings(name, options, learning_rate=0.01)
    found = create_optimizer(settings, 1, "dense").dense
    chex.assert_trees_all_equal(updates_of(found), updates_of(expected))


def test_an_unknown_option_is_refused():
    with pytest.raises(UserError, match=r"'eps_rot', which is not an option of nadam; did you"):
        create_optimizer(OptimizerSettings("nadam", {"eps_rot": 0.5}), 1, "dense")


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd", "adagrad", "rmsprop", "lamb"])
def test_a_plateau_cuts_the_rate_of_optimizers_that_are_linear_in_it(name):
    create_optimizer(OptimizerSettings(name, schedule="plateau"), 1, "dense")


@pytest.mark.parametrize("name", ["lars", "fromage", "rprop"])
def test_a_plateau_is_refused_where_a_cut_is_no_lower_rate(name):
    with pytest.raises(UserError, match=f"for '{name}' differs from a lower learning rate"):
        create_optimizer(OptimizerSettings(name, schedule="plateau"), 1, "dense")
