"""Which parameters a penalty counts together."""

import re

import jax

# Patterns over a parameter's path, ``tower/dense_0/kernel``; the first that is found names its
# group, and a parameter without one has no penalty. A new layer's kernels are ``interaction``.
_GROUPS = (
    (re.compile(r"^table/first_order$|^inputs/dense_\d+_first_order$"), "first_order"),
    (re.compile(r"^table/|^inputs/dense_\d+_kernel$"), "table"),
    (re.compile(r"^(tower|streams_\d+|out|head)/.*kernel$"), "tower"),
    (re.compile(r"kernel$"), "interaction"),
)


def group_of(path: tuple) -> str | None:
    """The group of a parameter: a field of ``Penalties``, or None for biases and batch norm."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return next((group for pattern, group in _GROUPS if pattern.search(name)), None)


def is_table(path: tuple) -> bool:
    """Whether a parameter belongs to the embedding table."""
    return jax.tree_util.keystr(path, simple=True, separator="/").startswith("table/")
