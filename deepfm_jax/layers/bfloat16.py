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
    """``inputs @ kernel`` with both rounded to bfloat16 and every sum in float32.

    The gradients are products of the same kind: autodiff would multiply a float32 cotangent with a
    bfloat16 operand, for which there is no fast product anywhere. Parameters and activations stay
    float32, so nothing is rounded twice.

    They are of reverse mode alone: ``jax.jvp``, ``jax.jacfwd`` and ``jax.hessian`` of a model in
    bfloat16 raise a TypeError. Take these of the same weights with ``compute_dtype="float32"``.
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
    # On an explicit mesh a sum over the batch, which is split, must say where it goes.
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
    # A CPU multiplies bfloat16 fast only where both operands lie row by row, and the compiler takes
    # a transposition as a view unless told; accelerators have products of their own for it.
    return jax.lax.platform_dependent(array, cpu=_laid_out_anew, default=jnp.transpose)


def _laid_out_anew(array: jax.Array) -> jax.Array:
    # Without the barrier the constraint is moved through the transposition and undone.
    return with_layout_constraint(jax.lax.optimization_barrier(array.T), Layout((0, 1)))
