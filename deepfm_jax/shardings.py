"""Shardings that array types require on explicit meshes and inside ``jax.shard_map``.

On an explicit mesh, JAX's default, the sharding of an array is part of its type, and lookups,
products over the batch and some reshapes need an ``out_sharding``. Without such a mesh it is None,
and the program contains no shardings. Inside ``jax.shard_map``, the type of an array includes the
mesh axes over which it varies.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array

from deepfm_jax.typing import AnyArray


def sharding_like(ndim: int, like: AnyArray, *others: AnyArray) -> NamedSharding | None:
    """The sharding of an array of ``ndim`` axes whose leading axes are split as in ``like``.

    Args:
      ndim: Number of axes. Axes that ``like`` does not have are replicated.
      like: Array whose axes are split.
      *others: Arrays that may be on an explicit mesh if ``like`` is not.

    Returns:
      The sharding; None if no array is on an explicit mesh.
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
    """Calls the function; on an explicit mesh, the compiler places everything but the result."""
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
    """Makes all arrays vary over the same mesh axes; no change outside ``jax.shard_map``.

    A function with custom derivatives needs this, so that the gradient of an array that did not
    vary is summed over the devices.
    """
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]  # pyright: ignore[reportAttributeAccessIssue]
    all_axes = frozenset().union(*varying)
    missing = [tuple(sorted(all_axes - axes)) for axes in varying]
    return tuple(
        jax.lax.pcast(array, axes, to="varying") if axes else array
        for array, axes in zip(arrays, missing, strict=True)
    )
