"""Which device holds what: the mesh, how a batch lies on it, and rules for the state."""

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

# Devices along SHARD hold the rows of one table between them; each line along REPLICA holds a copy.
REPLICA_AXIS, SHARD_AXIS = "replica", "shard"
# The batch is split over all devices.
BATCH_SPEC = PartitionSpec((REPLICA_AXIS, SHARD_AXIS))
TABLE_SPEC = PartitionSpec(SHARD_AXIS)

# Pairs of a regex and a spec. The first regex found in an array's path wins; what matches none is
# on every device. A spec names for each axis of the array an axis of the mesh, several, or None.
Rules: TypeAlias = Sequence[Sequence[Any]]

# The table, the state of its row optimizers, the marks of frozen rows, and the slot map's scratch
# have the table's rows.
_TABLE = re.compile(r"(^|/)params/table/|^row_state/|^frozen/|^scratch/")


@dataclasses.dataclass(frozen=True)
class Partitioning:
    """How a run lies on its devices, whatever their number.

    Attributes:
      replicas: Copies of the table, each split over ``devices / replicas`` devices. More copies
        make the exchange of rows local to fewer devices and take as much more memory.
      rules: For arrays that are not the table's: ``(regex, spec)`` pairs over paths such as
        ``params/tower/dense_0/kernel``, the first match wins. Optimizer state has the paths of
        its parameters below ``opt_state``, so that one regex finds both. Default: all devices.
      exchange_capacity: Rows that a device can send to another at once, as a multiple of those that
        it would send if its ids were distinct and spread evenly (four standard deviations are
        added). A step that needs more takes further rounds; nothing is ever dropped.
      exchange_dtype: What gradients of rows travel in, and rows of a float32 table: ``"float32"``
        or ``"bfloat16"``, which halves the bytes and rounds them.
    """

    replicas: PositiveInt = 1
    rules: Rules = ()
    exchange_capacity: PositiveFloat = 1.0
    exchange_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        check_values(self, "partitioning.")
        for rule in self.rules:
            _check_rule(rule)
        # JSON has lists, and equal settings must be equal.
        object.__setattr__(
            self, "rules", tuple((regex, _tuples(spec)) for regex, spec in self.rules)
        )


def is_table_rows(path: str) -> bool:
    """Whether an array of a state, at ``path``, has the table's rows on the sparse path."""
    return bool(_TABLE.search(path))


def array_path(path: tuple) -> str:
    """A key path as ``params/table/embedding``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def create_mesh(devices: Sequence[Any] | None = None, replicas: int = 1) -> Mesh:
    """A mesh of ``replica`` x ``shard`` over the given devices (all of them when None).

    The devices of a process stand side by side, so that it feeds consecutive rows of a batch.

    Raises:
      UserError: the devices do not split into so many replicas.
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
    """Rows of the batch split evenly over all devices.

    Args:
      mesh: Devices.
      batch_size: B.
      setting: Name of the setting that has it, for messages.

    Raises:
      UserError: the batch does not divide by the number of devices.
    """
    if batch_size < 1 or batch_size % mesh.size:
        raise UserError(
            f"{setting}={batch_size} does not split evenly over {mesh.size} devices; "
            f"use a positive multiple of {mesh.size}"
        )
    return NamedSharding(mesh, BATCH_SPEC)


def process_rows(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """The rows of a batch, from start to stop, that lie on the devices of this process."""
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    edges = [index[0].indices(batch_size)[:2] for index in indices]  # pyright: ignore[reportOptionalSubscript]
    return min(start for start, _ in edges), max(stop for _, stop in edges)


@dataclasses.dataclass(frozen=True)
class Placement:
    """How the arrays of a model lie on devices.

    Attributes:
      mesh: The devices (see ``create_mesh``).
      striped: Whether the rows of the table are split over the shards; otherwise each device has
        all of them, which is what dense updates need.
      partitioning: The settings for everything else.
    """

    mesh: Mesh
    striped: bool = False
    partitioning: Partitioning = Partitioning()

    @property
    def stripes(self) -> int:
        """Shards over which the rows of the table lie."""
        return self.mesh.shape[SHARD_AXIS] if self.striped else 1

    @property
    def platform(self) -> str:
        """Kind of the devices: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
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
                f"{tuple(shape)} into {parts} parts; it does not divide"
            )
    return PartitionSpec(*spec)
