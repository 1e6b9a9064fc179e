"""The embedding table: one array of rows for all fields, and the lookup of a batch's rows."""

import itertools
from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from deepfm_jax.embedding.access import read
from deepfm_jax.embedding.initializers import normal_by_position
from deepfm_jax.embedding.stripes import striped_rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import (
    PADDING_ID,
    FieldDims,
    by_slot,
    field_offsets,
    field_specs,
    slot_counts,
    total_rows,
)
from deepfm_jax.typing import AnyArray, Embeddings, FirstOrder, Ids, Values


@flax.struct.dataclass
class Rows:
    """The table's rows of a batch, before they are multiplied by the features' values.

    Attributes:
      first_order: Weight of each feature, [B, S]; None where a model has none.
      embedding: Latent vector of each feature, [B, S, D], of no meaning in slots of fields without
        vectors; None where a model has none.
      slots: Slots of each field, F numbers whose sum is S; None where each has one.
    """

    first_order: Float[AnyArray, "batch slots"] | None
    embedding: Float[AnyArray, "batch slots dim"] | None
    slots: tuple[int, ...] | None = flax.struct.field(pytree_node=False, default=None)

    def of_fields(self, field_dims: FieldDims) -> "Rows":
        """The same rows as slots of these fields."""
        return Rows(self.first_order, self.embedding, slot_counts(field_dims))

    def first_order_terms(self, values: Values | None) -> FirstOrder:
        """sum_k w_k x_k over the slots of each field, [B, F]; see ``embeddings``.

        Raises:
          UserError: see ``embeddings``.
        """
        if self.first_order is None:
            raise ValueError("this table holds no first-order weights (first_order=False)")
        _check_values(values, self.first_order)
        return _by_field(self.first_order, values, self.slots)

    def embeddings(self, values: Values | None, fields: int | None = None) -> Embeddings:
        """e_f = sum_k v_k x_k over the slots of each field, [B, F, D].

        Args:
          values: x, [B, S]; all 1 when None. A slot that a row leaves empty has 0.
          fields: The first so many fields alone; None for all.

        Raises:
          UserError: no values, where a field has several slots, or values of another shape than
            [B, S], which would else be repeated or cut.
        """
        if self.embedding is None:
            raise ValueError("this table holds no vectors (embed_dim=0)")
        _check_values(values, self.embedding)
        slots = None if self.slots is None else self.slots[:fields]
        read = fields if slots is None else sum(slots)
        values = None if values is None else values[:, :read]
        return _by_field(self.embedding[:, :read], values, slots)


def _check_values(values: Values | None, features: AnyArray) -> None:
    if values is not None and values.shape != features.shape[:2]:
        raise UserError(
            f"values have shape {values.shape}, and the ids {features.shape[:2]}; pass one value "
            "for each id"
        )


def _by_field(features: AnyArray, values: Values | None, slots: tuple[int, ...] | None) -> AnyArray:
    """Features [B, S, ...] times values, summed over the slots of each field: [B, F, ...]."""
    counts: tuple[int, ...] = slots or (1,) * features.shape[1]
    if values is None:
        if max(counts) > 1:
            raise UserError("a field has several slots: pass values, 0 in slots that are empty")
        return features
    values = values.reshape(*values.shape, *(1,) * (features.ndim - 2))
    parts, start = [], 0
    for count, run in itertools.groupby(counts):
        fields = len(list(run))
        part = slice(start, start + count * fields)
        start = part.stop
        feature, value = features[:, part], values[:, part]
        if count == 1:
            parts.append(feature * value)
            continue
        # An empty slot reads no row, which is NaN.
        terms = jnp.where(value != 0, feature, 0.0) * value
        parts.append(terms.reshape(-1, fields, count, *terms.shape[2:]).sum(axis=2))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def check_ids(ids, field_dims: FieldDims) -> None:
    """Checks ids that are at hand (not traced) against the rows of their fields.

    Args:
      ids: [B, S], local to each field. Traced ids pass: under ``jit`` their shape alone is known,
        and an id out of range then makes its row's logit NaN, never another row's weight.
      field_dims: Rows of each field.

    Raises:
      UserError: ids that are not integers, not [B, S], of no row, or outside 0 <= id < rows of the
        field; the message names row, slot, field and value. Empty slots of a field with several, id
        -1, pass.
    """
    slots = slot_counts(field_dims)
    if ids.ndim != 2 or ids.shape[1] != sum(slots):
        raise UserError(f"ids have shape {tuple(ids.shape)}; the model reads [batch, {sum(slots)}]")
    if not ids.shape[0]:
        raise UserError("ids have no row; a batch has one at least")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"ids have dtype {ids.dtype}; pass int32 (float32 confuses ids above 2^24)")
    if isinstance(ids, Tracer) or not getattr(ids, "is_fully_addressable", True):
        return
    local = np.asarray(ids)
    least = by_slot(field_dims, np.where(np.array(slots) > 1, PADDING_ID, 0))
    wrong = np.argwhere((local < least) | (local >= _rows_by_slot(field_dims)))
    if wrong.size:
        row, slot = wrong[0]
        field = int(by_slot(field_dims, np.arange(len(slots)))[slot])
        rows = field_specs(field_dims)[field].rows
        raise UserError(
            f"ids[{row}, {slot}] = {local[row, slot]} is out of range: field {field} has "
            f"{rows} rows (0 to {rows - 1}); {len(wrong)} such ids"
        )


def table_rows(ids: Ids, field_dims: FieldDims) -> Int[Array, "batch slots"]:
    """Row ``offset[f] + id`` of each id, [B, S]; V, which is no row, for an id out of range.

    No sum overflows: offsets are at most V - 1 and ids at hand are checked; an id beyond its field,
    whose sum could, never enters one.
    """
    inside = (ids >= 0) & (ids < _rows_by_slot(field_dims)[None, :])
    # Without this, id field_dims[f] would silently read the next field's first row.
    local = jnp.where(inside, ids, 0).astype(jnp.int32)
    offsets = by_slot(field_dims, field_offsets(field_dims))
    return jnp.where(inside, local + offsets[None, :], total_rows(field_dims))


def _rows_by_slot(field_dims: FieldDims) -> np.ndarray:
    rows = [spec.rows for spec in field_specs(field_dims)]
    return by_slot(field_dims, np.array(rows, np.int32))


class EmbeddingTable(nn.Module):
    """First-order weights and latent vectors of every feature of every field.

    Row ``offset[f] + id`` belongs to value ``id`` of field ``f``. The module looks rows up and
    does no arithmetic on them, so that the training step may gather the same rows by another road.

    Weights and vectors are two arrays, not one of D + 1 columns: slicing rows of odd width costs
    more than the second gather saves.

    Attributes:
      field_dims: Rows of each field, F entries; V is their sum (see ``features``).
      embed_dim: D; 0 for a table of first-order weights alone.
      first_order: Whether there are first-order weights.
      embedded_fields: The first so many fields have vectors; None for all. The others, at the end,
        have first-order weights alone, and so cost no [D] a row.
      init_std: Standard deviation of the normal initialiser of the vectors. First-order weights
        start at 0 (Rendle 2012, "Factorization Machines with libFM", Alg. 1).
      dtype: What rows are stored in, ``"float32"`` or ``"bfloat16"``; rows read are float32.
    """

    field_dims: FieldDims
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
        total = total_rows(self.field_dims)
        if not (self.first_order or self.embed_dim):
            raise UserError("a table needs first-order weights or embed_dim above 0")
        dtype = table_dtype(self.dtype)
        table = {}
        if self.first_order:
            zeros = nn.initializers.zeros
            shape = (striped_rows(total, stripes),)
            table["first_order"] = self.param("first_order", zeros, shape, dtype)
        if self.embed_dim:
            rows = total_rows(self.field_dims[: self.embedded_fields])
            init = normal_by_position(self.init_std, rows, stripes)
            shape = (striped_rows(rows, stripes), self.embed_dim)
            table["embedding"] = self.param("embedding", init, shape, dtype)
        return read_rows(table, table_rows(ids, self.field_dims)).of_fields(self.field_dims)


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
