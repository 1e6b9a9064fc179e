"""The embedding table: one array of rows for all fields, and the lookup of a batch's rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from deepfm_jax.embedding.access import read
from deepfm_jax.embedding.initializers import normal_by_position
from deepfm_jax.embedding.stripes import striped_rows
from deepfm_jax.errors import UserError
from deepfm_jax.typing import AnyArray, Embeddings, FirstOrder, Ids, Values

_MAX_ROWS = np.iinfo(np.int32).max


class Rows(NamedTuple):
    """The table's rows of a batch, before they are multiplied by the features' values.

    Attributes:
      first_order: Weight of each feature, [B, S]; None where a model has none.
      embedding: Latent vector of each feature, [B, S, D], of no meaning in slots of fields without
        vectors; None where a model has none.
    """

    first_order: FirstOrder | None
    embedding: Embeddings | None

    def first_order_terms(self, values: Values | None) -> FirstOrder:
        """w_i x_i [B, S]; all x_i are 1 when ``values`` is None."""
        if self.first_order is None:
            raise ValueError("this table holds no first-order weights (first_order=False)")
        return self.first_order if values is None else self.first_order * values

    def embeddings(
        self, values: Values | None, fields: int | None = None
    ) -> Float[AnyArray, "batch fields dim"]:
        """e_i = v_i x_i of the first ``fields`` fields, or of all: [B, S, D]."""
        if self.embedding is None:
            raise ValueError("this table holds no vectors (embed_dim=0)")
        embedding = self.embedding[:, :fields]
        return embedding if values is None else embedding * values[:, :fields, None]


def field_offsets(field_dims: Sequence[int]) -> np.ndarray:
    """First row of each field in the shared table: cumulative sums of ``field_dims``, [F] int32.

    Raises:
      UserError: no field, a field without rows, or more than 2^31 - 1 rows in all (ids are int32).
    """
    dims = np.asarray(tuple(field_dims), dtype=np.int64)
    if dims.size == 0 or dims.min() < 1:
        raise UserError(f"field_dims must name at least one row for each field; got {field_dims}")
    if dims.sum() > _MAX_ROWS:
        raise UserError(
            f"field_dims sum to {dims.sum()} rows; int32 ids reach {_MAX_ROWS}: raise min_count"
        )
    return (np.cumsum(dims) - dims).astype(np.int32)


def check_ids(ids, field_dims: Sequence[int]) -> None:
    """Checks ids that are at hand (not traced) against the rows of their fields.

    Args:
      ids: [B, S], local to each field. Traced ids pass: under ``jit`` their shape alone is known,
        and an id out of range then makes its row's logit NaN, never another row's weight.
      field_dims: Rows of each field.

    Raises:
      UserError: ids that are not integers, not [B, S], or outside 0 <= id < field_dims[f]; the
        message names row, field and value.
    """
    if ids.ndim != 2 or ids.shape[1] != len(field_dims):
        raise UserError(
            f"ids have shape {tuple(ids.shape)}; the model reads [batch, {len(field_dims)}]"
        )
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"ids have dtype {ids.dtype}; pass int32 (float32 confuses ids above 2^24)")
    if isinstance(ids, Tracer) or not getattr(ids, "is_fully_addressable", True):
        return
    local = np.asarray(ids)
    wrong = np.argwhere((local < 0) | (local >= np.asarray(field_dims)))
    if wrong.size:
        row, field = wrong[0]
        raise UserError(
            f"ids[{row}, {field}] = {local[row, field]} is out of range: field {field} has "
            f"{field_dims[field]} rows (0 to {field_dims[field] - 1}); {len(wrong)} such ids"
        )


def table_rows(ids: Ids, field_dims: Sequence[int]) -> Int[Array, "batch slots"]:
    """Row ``offset[f] + id`` of each id, [B, S]; V, which is no row, for an id out of range.

    No sum overflows: offsets are at most V - 1 and ids at hand are checked; an id beyond its field,
    whose sum could, never enters one.
    """
    dims = np.asarray(field_dims, dtype=np.int32)
    inside = (ids >= 0) & (ids < dims[None, :])
    # Without this, id field_dims[f] would silently read the next field's first row.
    local = jnp.where(inside, ids, 0).astype(jnp.int32)
    return jnp.where(
        inside, local + field_offsets(field_dims)[None, :], int(dims.sum(dtype=np.int64))
    )


class EmbeddingTable(nn.Module):
    """First-order weights and latent vectors of every feature of every field.

    Row ``offset[f] + id`` belongs to value ``id`` of field ``f``. The module looks rows up and
    does no arithmetic on them, so that the training step may gather the same rows by another road.

    Weights and vectors are two arrays, not one of D + 1 columns: slicing rows of odd width costs
    more than the second gather saves.

    Attributes:
      field_dims: Rows of each field, F entries; V is their sum.
      embed_dim: D; 0 for a table of first-order weights alone.
      first_order: Whether there are first-order weights.
      embedded_fields: The first so many fields have vectors; None for all. The others, at the end,
        have first-order weights alone, and so cost no [D] a row.
      init_std: Standard deviation of the normal initialiser of the vectors. First-order weights
        start at 0 (Rendle 2012, "Factorization Machines with libFM", Alg. 1).
      dtype: What rows are stored in, ``"float32"`` or ``"bfloat16"``; rows read are float32.
    """

    field_dims: Sequence[int]
    embed_dim: int
    init_std: float = 0.01
    dtype: str = "float32"
    first_order: bool = True
    embedded_fields: int | None = None

    @nn.compact
    def __call__(self, ids: Ids, stripes: int = 1) -> Rows:
        """Rows of ``ids`` [B, S]; rows of an id out of range are NaN under ``jit``.

        Args:
          ids: Local to each field.
          stripes: Shards over which rows are striped (see ``embedding.stripes``). Above 1 it is of
            use to ``init`` alone, for the layout: the rows returned are not those of ``ids``.

        Raises:
          UserError: see ``check_ids``; or a table without any array.
        """
        check_ids(ids, self.field_dims)
        total = int(sum(self.field_dims))
        if not (self.first_order or self.embed_dim):
            raise UserError("a table needs first-order weights or embed_dim above 0")
        dtype = table_dtype(self.dtype)
        table = {}
        if self.first_order:
            zeros = nn.initializers.zeros
            shape = (striped_rows(total, stripes),)
            table["first_order"] = self.param("first_order", zeros, shape, dtype)
        if self.embed_dim:
            rows = int(sum(self.field_dims[: self.embedded_fields]))
            init = normal_by_position(self.init_std, rows, stripes)
            shape = (striped_rows(rows, stripes), self.embed_dim)
            table["embedding"] = self.param("embedding", init, shape, dtype)
        return read_rows(table, table_rows(ids, self.field_dims))


def read_rows(table: Mapping[str, jax.Array], rows: Int[Array, "batch slots"]) -> Rows:
    """The rows of a table, in float32; row V, which is none, reads as NaN.

    Args:
      table: ``first_order`` [V], ``embedding`` [V, D], or both. Vectors may end before V.
      rows: See ``table_rows``.
    """
    found = {name: read(array, rows).astype(jnp.float32) for name, array in table.items()}
    return Rows(first_order=found.get("first_order"), embedding=found.get("embedding"))


def table_dtype(name: str) -> jnp.dtype:
    """The dtype that rows are stored in.

    Raises:
      UserError: neither ``float32`` nor ``bfloat16``.
    """
    if name not in ("float32", "bfloat16"):
        raise UserError(f"table dtype {name!r} is unknown; use 'float32' or 'bfloat16'")
    return jnp.dtype(name)
