"""Writes ``models.npz``: what every model makes of fixed weights, so that no change moves it.

Run from the repository root: ``python -m tests.golden.make_models``. The float64 references of
``tests/references.py`` say what is right; these numbers say that a refactoring has changed nothing.
Write them anew only where a model's equations are meant to change.
"""

import pathlib

import jax
import numpy as np

from tests import model_variants
from tests.models import several_slots_test

LABELS = np.array([0, 1, 1, 0, 1, 0], np.float32)
PATH = pathlib.Path(__file__).parent / "models.npz"


def flat(tree):
    """Leaves of a pytree one after another, and the names and shapes that they have."""
    leaves = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    numbers = np.concatenate([np.ravel(leaf) for leaf in named.values()]).astype(np.float32)
    return numbers, [f"{name} {list(leaf.shape)}" for name, leaf in named.items()]


def loss_of(model, ids, values, labels):
    """The logloss of logits by parameters, with the logits."""

    def loss(params):
        logits = model.apply({"params": params}, ids, values)
        return jax.numpy.mean(jax.nn.softplus(logits) - labels * logits), logits

    return jax.value_and_grad(loss, has_aux=True)


# A model sees slots only after they are pooled, so the first of its variants is enough for them.
_FIRST_OF_MODEL = {
    name: variant for variant, (name, *_) in reversed(model_variants.VARIANTS.items())
}
NAMES = [
    *model_variants.VARIANTS,
    *(f"{variant}/slots" for variant in reversed(_FIRST_OF_MODEL.values())),
]


def case(name):
    """A variant with one slot a field, or with several slots and shared rows."""
    variant, _, several = name.partition("/")
    if several:
        return several_slots_test.drawn(variant, several_slots_test.SHARED)
    return model_variants.drawn(variant)


def main():
    arrays = {}
    for name in NAMES:
        model, params, ids, values = case(name)
        labels = LABELS[: len(ids)]
        (_, logits), gradient = loss_of(model, ids, values, labels)(params)
        numbers, names = flat(params)
        found = {"names": names, "params": numbers, "ids": ids, "values": values, "logits": logits}
        found["gradient"], _ = flat(gradient)
        arrays.update({f"{name}/{key}": np.asarray(value) for key, value in found.items()})
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
