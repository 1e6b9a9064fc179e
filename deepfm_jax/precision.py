"""The dtype in which a model computes: float32, or float64 if its table is in float64."""

import jax
import jax.numpy as jnp

from deepfm_jax.errors import UserError
from deepfm_jax.typing import AnyArray

TABLE_DTYPES = ("float32", "bfloat16", "float64")


def working_dtype(array: AnyArray | jnp.dtype) -> jnp.dtype:
    """The dtype of parameters and results that go with ``array``: its own, at least float32."""
    return jnp.result_type(jnp.float32, array)


def table_dtype(name: str) -> jnp.dtype:
    """The dtype in which rows are stored.

    Raises:
      UserError: the name is unknown, or is ``float64`` without JAX's 64-bit mode.
    """
    if name not in TABLE_DTYPES:
        raise UserError(f"table dtype {name!r} is unknown; use one of {list(TABLE_DTYPES)}")
    if name == "float64" and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise UserError(
            "model.table_dtype='float64' needs JAX's 64-bit mode: set JAX_ENABLE_X64=1, or use the "
            "model in a `with jax.enable_x64():` block"
        )
    return jnp.dtype(name)
