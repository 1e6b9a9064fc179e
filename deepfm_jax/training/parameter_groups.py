"""Groups of parameters that share a penalty."""

import re

import jax

# Patterns over a parameter's path, such as ``tower/dense_0/kernel``. The first match gives the
# group; parameters without a match are not penalized. Kernels of a new layer are ``interaction``.
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
