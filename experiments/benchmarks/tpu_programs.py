"""Programs compiled for a TPU slice without access to it, and their cost for each chip.

libtpu compiles for any slice that it knows by name, on any host. The result is the program that the
slice would run: its collectives and its memory are facts, its speed is not known.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from deepfm_jax import DeepFM
from deepfm_jax.distributed.partitioning import (
    BATCH_SPEC,
    SHARD_AXIS,
    TABLE_SPEC,
    Partitioning,
    batch_sharding,
    create_mesh,
)
from deepfm_jax.embedding import striped_rows
from deepfm_jax.errors import UserError
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer import create_optimizer
from deepfm_jax.training.optimizer_settings import OptimizerSettings, RowSettings
from deepfm_jax.training.state import abstract_state, placement_for, state_shardings
from deepfm_jax.training.step import make_train_step
from experiments.benchmarks import hlo_report, hlo_text
from experiments.benchmarks.workload import FIELDS, MLP_DIMS, field_rows

_NO_TPU = {
    # Without these, libtpu reports that no metadata server describes its slice.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    # libtpu allows one process at a time, because chips have one owner. Here there are no chips.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a compiled program, apart from the slice.

    Attributes:
      rows: V, rows of the table, split evenly over the fields.
      embed_dim: D.
      batch_per_device: Examples per device.
      row_optimizer: Row optimizer of the table.
      partitioning: Partitioning over the slice's chips.
    """

    rows: int
    embed_dim: int = 16
    batch_per_device: int = 1024
    row_optimizer: str = "rowwise_adagrad"
    partitioning: Partitioning = dataclasses.field(default_factory=Partitioning)


def slice_devices(name: str) -> Sequence[Any]:
    """The chips of a slice such as ``v5e:4x4``, for which to compile.

    After the call, this process sees no other accelerators.

    Raises:
      UserError: libtpu is not installed, or does not know the slice.
    """
    os.environ.update(_NO_TPU)  # libtpu reads them when it is loaded.
    jax.config.update("jax_platforms", "cpu")
    try:
        return topologies.get_topology_desc(name, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"topology {name!r}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{error}; pip install 'jax[tpu]' on Linux, x86-64") from None


def train_step(devices: Sequence[Any], settings: Settings) -> jax.stages.Lowered:
    """Lowers the library's train step of DeepFM on the sparse path for ``devices``.

    Raises:
      UserError: the table does not split over the devices.
    """
    mesh = create_mesh(devices, settings.partitioning.replicas)
    model = DeepFM(
        (field_rows(settings.rows),) * FIELDS,
        embed_dim=settings.embed_dim,
        mlp_dims=MLP_DIMS,
        dropout=0.0,
    )
    optimizer = create_optimizer(
        OptimizerSettings(rows=RowSettings(name=settings.row_optimizer)), 1, "sparse"
    )
    shapes = abstract_state(Network(model), optimizer, placement_for(optimizer, mesh))
    shardings = state_shardings(
        Network(model), optimizer, placement_for(optimizer, mesh, settings.partitioning)
    )
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    size = settings.batch_per_device * mesh.size
    split = batch_sharding(mesh, size)
    batch = {
        "ids": jax.ShapeDtypeStruct((size, FIELDS), jnp.int32, sharding=split),
        "labels": jax.ShapeDtypeStruct((size, 1), jnp.float32, sharding=split),
        "mask": jax.ShapeDtypeStruct((size,), jnp.float32, sharding=split),
    }
    step = make_train_step(
        Network(model), optimizer, placement_for(optimizer, mesh, settings.partitioning)
    )
    return step.lower(state, batch)


def plain_lookup(devices: Sequence[Any], settings: Settings) -> jax.stages.Lowered:
    """Lowers ``table[ids]`` on a table split by rows, as the compiler handles it by default.

    The compiler takes what it finds cheaper: either it gathers the whole table on each device, or
    it gathers all ids of the batch on each device and then sums, over all devices, the rows that
    they read (0 on devices that do not hold a row). Per device, that is the bytes of the table, or
    of the rows of all devices' examples.
    """
    mesh = create_mesh(devices, settings.partitioning.replicas)
    rows = striped_rows(FIELDS * field_rows(settings.rows), mesh.shape[SHARD_AXIS])
    table = jax.ShapeDtypeStruct(
        (rows, settings.embed_dim), jnp.float32, sharding=NamedSharding(mesh, TABLE_SPEC)
    )
    ids = jax.ShapeDtypeStruct(
        (settings.batch_per_device * mesh.size, FIELDS),
        jnp.int32,
        sharding=NamedSharding(mesh, BATCH_SPEC),
    )
    lookup = jax.jit(lambda table, ids: table[ids], out_shardings=NamedSharding(mesh, BATCH_SPEC))
    return lookup.lower(table, ids)


PROGRAMS = {"train_step": train_step, "plain_lookup": plain_lookup}


def figures(name: str, devices: Sequence[Any], settings: Settings) -> dict[str, Any]:
    """Compiles one of ``PROGRAMS`` and returns its cost per device, as plain data.

    ``memory`` is in bytes; its ``aliased`` bytes are part of ``arguments`` and of ``outputs``, and
    count once in ``total``. Outside ``memory``, ``arguments`` and ``aliased_arguments`` are numbers
    of arrays. ``flops`` and ``bytes_accessed`` are the compiler's estimates, None if it gives none.
    For ``collectives`` and ``copied_table_bytes`` see ``hlo_report``.

    Raises:
      UserError: the table does not split over the devices, or does not fit their memory.
    """
    lowered = PROGRAMS[name](devices, settings)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"does not compile: {str(error).splitlines()[0]}") from None
    module = hlo_text.read(compiled.as_text() or "")
    found = hlo_report.collectives(module)
    shards = len(devices) // settings.partitioning.replicas
    shard_rows = striped_rows(FIELDS * field_rows(settings.rows), shards) // shards
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis() or {}
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    aliased, temporaries = memory.alias_size_in_bytes, memory.temp_size_in_bytes
    return {
        "collective_bytes": sum(collective.bytes for collective in found),
        "collective_padded_bytes": sum(collective.padded_bytes for collective in found),
        "memory": {
            "arguments": arguments,
            "outputs": outputs,
            "aliased": aliased,
            "temporaries": temporaries,
            "code": memory.generated_code_size_in_bytes,
            "total": arguments + outputs - aliased + temporaries,
        },
        "arguments": sum(i.opcode == "parameter" for i in module.computations[module.entry]),
        "aliased_arguments": module.aliased,
        "copied_table_bytes": hlo_report.copies(module, shard_rows),
        "flops": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
        "collectives": [collective.to_dict() for collective in found],
    }
