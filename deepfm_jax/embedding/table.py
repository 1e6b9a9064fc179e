"""The embedding table: its arrays, and the lookup of a batch's rows."""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from deepfm_jax.embedding.gather_scatter import read
from deepfm_jax.embedding.initializers import normal_by_position
from deepfm_jax.embedding.layout import Space, TableLayout, lowest_ids
from deepfm_jax.embedding.stripes import striped_rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import Feature, by_slot, slot_counts
from deepfm_jax.precision import table_dtype, working_dtype
from deepfm_jax.typing import AnyArray, Ids, Values


@flax.struct.dataclass
class Rows:
    """The rows of a batch, before they are multiplied by the features' values.

    Attributes:
      arrays: The row of each slot that reads the array's space (see ``layout``), by array name:
        ``first_order`` [B, S], ``embedding`` [B, S, D]. Rows of slots without vectors are
        meaningless.
    """

    arrays: Mapping[str, AnyArray]


def check_ids(ids, features: tuple[Feature, ...]) -> None:
    """Checks the shape and dtype of ids, and the range of concrete ids.

    Traced ids are not checked against the rows of their fields. Under ``jit``, an out-of-range id
    makes the logit of its example NaN and never reads another row.

    Args:
      ids: [B, S], local to each field.
      features: The fields.

    Raises:
      UserError: ids are not integers or not [B, S]; the batch is empty; or an id is outside
        0 <= id < rows of its field. The message names example, slot, field and value. The id -1,
        which is padding, is valid in a field of several slots.
    """
    counts = slot_counts(features)
    if ids.ndim != 2 or ids.shape[1] != sum(counts):
        raise UserError(
            f"ids have shape {tuple(ids.shape)}; the model reads [batch, {sum(counts)}]"
        )
    if not ids.shape[0]:
        raise UserError("ids have no row; a batch needs at least one")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"ids have dtype {ids.dtype}; pass int32 (float32 confuses ids above 2^24)")
    if isinstance(ids, Tracer) or not getattr(ids, "is_fully_addressable", True):
        return
    local, rows = np.asarray(ids), np.array([feature.rows for feature in features])
    wrong = np.argwhere(
        (local < by_slot(features, lowest_ids(features))) | (local >= by_slot(features, rows))
    )
    if wrong.size:
        example, slot = wrong[0]
        field = int(by_slot(features, np.arange(len(features)))[slot])
        raise UserError(
            f"ids[{example}, {slot}] = {local[example, slot]} is out of range: field {field} has "
            f"{rows[field]} rows (0 to {rows[field] - 1}); {len(wrong)} such ids"
        )


class EmbeddingTable(nn.Module):
    """First-order weights and latent vectors of every id of every field.

    The module looks up rows and does no arithmetic on them, so the training step can gather the
    same rows by another path. Weights and vectors are separate arrays rather than one of D + 1
    columns, because slicing rows of odd width costs more than the second gather.

    Attributes:
      layout: The arrays of the table, and the rows of each field.
      init_std: Standard deviation of the normal initialiser of the vectors. First-order weights
        start at 0 (Rendle 2012, "Factorization Machines with libFM", Alg. 1).
      dtype: Storage dtype, ``"float32"``, ``"bfloat16"`` or ``"float64"``. Rows are read as
        float32, or as float64 from a float64 table.
    """

    layout: TableLayout
    init_std: float = 0.01
    dtype: str = "float32"

    @nn.compact
    def __call__(self, ids: Ids, stripes: int = 1, values: Values | None = None) -> Rows:
        """Rows of ``ids`` [B, S]; an out-of-range id reads as NaN under ``jit``.

        Args:
          ids: Ids local to each field.
          stripes: Shards over which rows are striped (see ``embedding.stripes``). A value above 1
            is only for ``init``, which needs the layout; it returns other rows than those of ids.
          values: [B, S]. If given, padding (value 0 in a field of several slots) reads as 0 instead
            of NaN, so that valid ids never produce NaN (see ``jax_debug_nans``).

        Raises:
          UserError: see ``check_ids`` and ``precision.table_dtype``.
        """
        check_ids(ids, self.layout.features)
        dtype, found = table_dtype(self.dtype), {}
        for space, row_ids in zip(self.layout.spaces, self.layout.row_ids(ids), strict=True):
            arrays = {
                name: self._array(name, rows, length, stripes, dtype)
                for name, rows, length in space.arrays
            }
            for name, array in arrays.items():
                unused = self._unused(space, name, ids, values)
                found |= read_rows({name: array}, row_ids, unused)
        return Rows(found)

    def _unused(
        self, space: Space, array: str, ids: Ids, values: Values | None
    ) -> Bool[AnyArray, "_ _"] | None:
        """A mask of the readings of an array that are not used; None if all are used."""
        features = self.layout.features
        counts = [features[field].slots for field in space.fields]
        has_none = [self.layout.vectors_of(field) != array for field in space.fields]
        unused = np.repeat(np.array(has_none) & (array != "first_order"), counts)[None, :]
        several = np.repeat(np.array(counts) > 1, counts)[None, :]
        # Values of the wrong shape raise later, where they are multiplied.
        if values is not None and values.shape == ids.shape and several.any():
            slots = self.layout.slots_of(space)
            of_space = values if len(slots) == values.shape[1] else values[:, slots]
            return unused | (several & (of_space == 0))
        return unused if unused.any() else None

    def _array(self, name: str, rows: int, length: int, stripes: int, dtype):
        count = striped_rows(rows, stripes)
        if not length:
            return self.param(name, nn.initializers.zeros, (count,), dtype)
        init = normal_by_position(self.init_std, rows, stripes)
        return self.param(name, init, (count, length), dtype)


def read_rows(
    arrays: Mapping[str, AnyArray],
    row_ids: Int[Array, "batch slots"],
    empty: AnyArray | None = None,
) -> dict[str, jax.Array]:
    """Rows of the arrays of one space, at least in float32; an out-of-range row reads as NaN.

    Args:
      arrays: Arrays by name.
      row_ids: Row numbers in the space.
      empty: See ``gather_scatter.read``.
    """
    return {
        name: read(array, row_ids, empty).astype(working_dtype(array.dtype))
        for name, array in arrays.items()
    }
