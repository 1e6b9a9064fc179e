"""Matrix products of bfloat16 operands, accumulated in float32, forward and backward."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import NamedSharding
from jaxtyping import Array, Float32

from deepfm_jax.shardings import sharding_like, vary_alike


def bfloat16_matmul(
    inputs: Float32[Array, "batch width"], kernel: Float32[Array, "width out"]
) -> Float32[Array, "batch out"]:
    """``inputs @ kernel`` with both operands rounded to bfloat16 and sums in float32.

    The gradients are also products of bfloat16 operands. Autodiff would multiply a float32
    cotangent by a bfloat16 operand, for which no platform has a fast product. Parameters and
    activations stay float32, so nothing is rounded twice.

    Only reverse mode is supported: ``jax.jvp``, ``jax.jacfwd`` and ``jax.hessian`` of a bfloat16
    model raise a TypeError. For these, use the same weights with ``compute_dtype="float32"``.
    """
    return _matmul(*vary_alike(inputs, kernel))


@jax.custom_vjp
def _matmul(inputs, kernel):
    return _product(_rounded(inputs), _rounded(kernel))


def _forward(inputs, kernel):
    inputs, kernel = _rounded(inputs), _rounded(kernel)
    return _product(inputs, kernel), (inputs, kernel)


def _backward(residuals, cotangent):
    inputs, kernel = residuals
    cotangent = _rounded(cotangent)
    # On an explicit mesh, a sum over the sharded batch needs an explicit output sharding.
    return (
        _product(cotangent, _transposed(kernel), sharding_like(2, inputs)),
        _product(_transposed(inputs), cotangent, sharding_like(2, kernel)),
    )


_matmul.defvjp(_forward, _backward)


def bfloat16_dot_general(
    inputs: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None
) -> jax.Array:
    """``bfloat16_matmul`` as the ``dot_general`` of a ``flax.linen.Dense`` over [B, width]."""
    del dimension_numbers, precision
    return bfloat16_matmul(inputs, kernel)


def _rounded(array: jax.Array) -> jax.Array:
    return array.astype(jnp.bfloat16)


def _product(left: jax.Array, right: jax.Array, sharding: NamedSharding | None = None) -> jax.Array:
    return jnp.dot(left, right, preferred_element_type=jnp.float32, out_sharding=sharding)


def _transposed(array: jax.Array) -> jax.Array:
    # A CPU multiplies bfloat16 fast only if both operands are row-major, but by default the
    # compiler treats a transpose as a view. Accelerators have products of transposed operands.
    return jax.lax.platform_dependent(array, cpu=_transposed_row_major, default=jnp.transpose)


def _transposed_row_major(array: jax.Array) -> jax.Array:
    # Without the barrier, the compiler moves the constraint through the transpose and undoes it.
    return with_layout_constraint(jax.lax.optimization_barrier(array.T), Layout((0, 1)))
