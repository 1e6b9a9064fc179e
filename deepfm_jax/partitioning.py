"""Which device holds what: one mesh, the batch split over it, rules for the state."""

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deepfm_jax.errors import UserError

DATA_AXIS = "data"

# First match of a parameter's path wins; whatever matches none is replicated.
Rules: TypeAlias = Sequence[tuple[str, PartitionSpec]]
# The optimizer's slots and the slot map's scratch have the table's rows.
TABLE_RULES: Rules = ((r"(^|/)table/|^slots/|^scratch$", PartitionSpec(DATA_AXIS)),)


def create_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of one axis, ``data``, over the given devices (all of them when None)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def batch_sharding(mesh: Mesh, batch_size: int) -> NamedSharding:
    """Rows of the batch split evenly over all devices.

    Raises:
      UserError: the batch does not divide by the number of devices.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UserError(
            f"batch_size={batch_size} does not split evenly over {mesh.size} devices; "
            f"use a positive multiple of {mesh.size}"
        )
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def state_shardings(shapes: Any, mesh: Mesh, rules: Rules = TABLE_RULES) -> Any:
    """A sharding for each array of a state, by the first rule that matches its path.

    The rows of the embedding table (and of the optimizer's slots, which carry the same path) are
    split over the mesh when the number of devices divides them; otherwise, and for whatever no
    rule names, every device holds the whole array.

    Args:
      shapes: Pytree of arrays or ``jax.ShapeDtypeStruct``.
      mesh: Devices.
      rules: ``(regex, PartitionSpec)`` pairs over paths such as ``params/table/embedding``.
    """

    def sharding(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name) and leaf.ndim and leaf.shape[0] % mesh.size == 0:
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, shapes)
