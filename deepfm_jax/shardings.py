"""What meshes ask of a program whose types they are part of.

On an explicit mesh, JAX's default, the sharding of an array is part of its type. Lookups, products
over the batch and some reshapes then need an ``out_sharding``. Without such a mesh it is None, and
the program is the one that has no sharding in it. Inside ``jax.shard_map`` the type says over which
axes of the mesh an array varies.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array

from deepfm_jax.typing import AnyArray


def sharding_like(ndim: int, like: AnyArray, *others: AnyArray) -> NamedSharding | None:
    """The sharding of an array of ``ndim`` axes, the first of which are split as those of ``like``.

    Args:
      ndim: Axes of the array. Those that ``like`` does not have are whole on every device.
      like: Says how the axes are split.
      *others: May lie on an explicit mesh where ``like`` lies on none.

    Returns:
      None where no array lies on an explicit mesh.
    """
    shardings = [jax.typeof(array).sharding for array in (like, *others)]
    meshes = [found.mesh for found in shardings if AxisType.Explicit in found.mesh.axis_types]
    if not meshes:
        return None
    spec = tuple(shardings[0].spec)[:ndim]
    return NamedSharding(meshes[0], PartitionSpec(*spec, *(None,) * (ndim - len(spec))))


def placed(
    function: Callable[..., Array], sharding: NamedSharding | None, *arguments: Any
) -> Array:
    """``function(*arguments)``; on an explicit mesh the compiler places all but the result."""
    if sharding is None:
        return function(*arguments)
    mesh = sharding.mesh
    explicit = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Explicit
    )
    in_auto_mode: Any = jax.sharding.auto_axes(function, axes=explicit, out_sharding=sharding)
    return in_auto_mode(*arguments)


def vary_alike(*arrays: Array) -> tuple[Array, ...]:
    """The arrays, all varying over the same axes of the mesh; unchanged outside ``jax.shard_map``.

    A function with derivatives of its own needs it: the gradient of an array that did not vary is
    then summed over the devices.
    """
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]  # pyright: ignore[reportAttributeAccessIssue]
    all_axes = frozenset().union(*varying)
    missing = [tuple(sorted(all_axes - axes)) for axes in varying]
    return tuple(
        jax.lax.pcast(array, axes, to="varying") if axes else array
        for array, axes in zip(arrays, missing, strict=True)
    )
