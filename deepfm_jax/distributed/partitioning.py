"""Placement of arrays on devices: the mesh, the sharding of a batch, and rules for the state."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deepfm_jax.annotations import PositiveFloat, PositiveInt
from deepfm_jax.dataclass_data import check_values
from deepfm_jax.errors import UserError

# The rows of a table are split over the devices along SHARD; each index along REPLICA has a copy.
REPLICA_AXIS, SHARD_AXIS = "replica", "shard"
# The batch is split over all devices.
BATCH_SPEC = PartitionSpec((REPLICA_AXIS, SHARD_AXIS))
TABLE_SPEC = PartitionSpec(SHARD_AXIS)

# Pairs of a regex and a spec. The first regex that matches an array's path wins; arrays without a
# match are replicated. A spec gives a mesh axis, several, or None for each axis of the array.
Rules: TypeAlias = Sequence[Sequence[Any]]

# The table, the state of its row optimizers, the masks of frozen rows, and the slot map's scratch
# have the table's rows.
_TABLE = re.compile(r"(^|/)params/table/|^row_state/|^frozen/|^scratch/")


@dataclasses.dataclass(frozen=True)
class Partitioning:
    """How a run is placed on its devices, for any number of devices.

    Attributes:
      replicas: Copies of the table, each split over ``devices / replicas`` devices. More copies
        limit the exchange of rows to fewer devices, and take proportionally more memory.
      rules: ``(regex, spec)`` pairs for arrays other than the table's, over paths such as
        ``params/tower/dense_0/kernel``; the first match wins. Optimizer state has the paths of
        its parameters below ``opt_state``, so one regex matches both. Default: replicated.
      exchange_capacity: Rows that a device can send to another at once, as a multiple of the rows
        that it would send if its ids were distinct and spread evenly (four standard deviations are
        added). A step that needs more takes further rounds; nothing is ever dropped.
      exchange_dtype: Dtype in which gradients of rows, and rows of a float32 table, are exchanged:
        ``"float32"`` or ``"bfloat16"``, which halves the bytes and rounds the numbers.
    """

    replicas: PositiveInt = 1
    rules: Rules = ()
    exchange_capacity: PositiveFloat = 1.0
    exchange_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        check_values(self, "partitioning.")
        for rule in self.rules:
            _check_rule(rule)
        # JSON has lists instead of tuples, but equal settings must compare equal.
        object.__setattr__(
            self, "rules", tuple((regex, _tuples(spec)) for regex, spec in self.rules)
        )


def is_table_rows(path: str) -> bool:
    """Whether the array at ``path`` of a state has the table's rows on the sparse path."""
    return bool(_TABLE.search(path))


def array_path(path: tuple) -> str:
    """A key path as text, such as ``params/table/embedding``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def create_mesh(devices: Sequence[Any] | None = None, replicas: int = 1) -> Mesh:
    """A mesh of ``replica`` x ``shard`` over the given devices (all of them when None).

    The devices of a process are adjacent, so each process feeds consecutive rows of a batch.

    Raises:
      UserError: the devices do not split evenly into the replicas.
    """
    devices = jax.devices() if devices is None else devices
    if replicas < 1 or len(devices) % replicas:
        raise UserError(
            f"partitioning.replicas={replicas} does not split {len(devices)} devices evenly"
        )
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(
        np.asarray(ordered).reshape(replicas, -1),
        (REPLICA_AXIS, SHARD_AXIS),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def batch_sharding(mesh: Mesh, batch_size: int, setting: str = "batch_size") -> NamedSharding:
    """The sharding that splits the rows of a batch evenly over all devices.

    Args:
      mesh: Devices.
      batch_size: B.
      setting: Name of the batch size's setting, for messages.

    Raises:
      UserError: the batch size is not a positive multiple of the number of devices.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UserError(
            f"{setting}={batch_size} does not split evenly over {mesh.size} devices; "
            f"use a positive multiple of {mesh.size}"
        )
    return NamedSharding(mesh, BATCH_SPEC)


def process_rows(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """The rows of a batch, from start to stop, that are on devices of this process."""
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    edges = [index[0].indices(batch_size)[:2] for index in indices]  # pyright: ignore[reportOptionalSubscript]
    return min(start for start, _ in edges), max(stop for _, stop in edges)


@dataclasses.dataclass(frozen=True)
class Placement:
    """How the arrays of a model are placed on devices.

    Attributes:
      mesh: The devices (see ``create_mesh``).
      striped: Whether the rows of the table are striped over the shards. Otherwise each device has
        all rows, as dense updates require.
      partitioning: The settings for everything else.
    """

    mesh: Mesh
    striped: bool = False
    partitioning: Partitioning = Partitioning()

    @property
    def stripes(self) -> int:
        """Number of shards of the table's rows."""
        return self.mesh.shape[SHARD_AXIS] if self.striped else 1

    @property
    def platform(self) -> str:
        """Platform of the devices: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.mesh.devices.flat[0].platform

    def shardings(self, shapes: Any) -> Any:
        """A sharding for each array of a state, by its path.

        Args:
          shapes: Pytree of arrays or ``jax.ShapeDtypeStruct``, with paths such as
            ``params/table/embedding``.

        Raises:
          UserError: a rule of ``partitioning`` does not fit an array that it matches.
        """
        return jax.tree_util.tree_map_with_path(self._sharding, shapes)

    def _sharding(self, path: tuple, leaf: Any) -> NamedSharding:
        name = array_path(path)
        if "/table/" in f"/{name}" or is_table_rows(name):
            split = self.striped and is_table_rows(name)
            return NamedSharding(self.mesh, TABLE_SPEC if split else PartitionSpec())
        for pattern, spec in self.partitioning.rules:
            if re.search(pattern, name):
                fitting = _fitting(pattern, spec, name, leaf.shape, self.mesh)
                return NamedSharding(self.mesh, fitting)
        return NamedSharding(self.mesh, PartitionSpec())


def _tuples(spec: Any) -> Any:
    return tuple(map(_tuples, spec)) if isinstance(spec, list | tuple) else spec


DEFAULT_PARTITIONING = Partitioning()


def _check_rule(rule: Any) -> None:
    try:
        pattern, _ = rule
        re.compile(pattern)
    except (TypeError, ValueError, re.error) as error:
        raise UserError(
            f"partitioning.rules has {rule!r}; give a regex and a mesh axis or None for each axis "
            f"of the arrays it matches: ('tower/.*/kernel', (None, 'shard')) ({error})"
        ) from None


def _fitting(pattern: str, spec, name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if isinstance(spec, str) or len(spec) > len(shape):
        raise UserError(
            f"partitioning rule {pattern!r} gives {spec!r} to {name}, which has {len(shape)} axes; "
            "name one mesh axis or None for each of them"
        )
    for size, entry in zip(shape, spec, strict=False):
        axes = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if unknown:
            raise UserError(
                f"partitioning rule {pattern!r} names mesh axis {unknown[0]!r}; there are "
                f"{list(mesh.shape)}"
            )
        parts = int(np.prod([mesh.shape[axis] for axis in axes]))
        if size % parts:
            raise UserError(
                f"partitioning rule {pattern!r} splits an axis of {size} of {name} "
                f"{tuple(shape)} into {parts} parts, which do not divide it"
            )
    return PartitionSpec(*spec)
