"""Turns table rows and dense numbers into one vector per field."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.embedding import Rows, TableLayout
from deepfm_jax.errors import UserError
from deepfm_jax.features import dense_size, slot_counts
from deepfm_jax.inputs.encoder import InputEncoder
from deepfm_jax.inputs.mean_pooling import MeanPooling
from deepfm_jax.inputs.sqrtn_pooling import SqrtNPooling
from deepfm_jax.inputs.sum_pooling import SumPooling
from deepfm_jax.precision import working_dtype
from deepfm_jax.typing import AnyArray, Dense, Embeddings, FirstOrder, Values

ENCODERS: dict[str, type[InputEncoder]] = {
    "sum": SumPooling,
    "mean": MeanPooling,
    "sqrtn": SqrtNPooling,
}


class Fields(NamedTuple):
    """The terms and vectors of a batch's fields, which are the input of a model.

    Attributes:
      linear: ``first_order``; None for a table without first-order weights.
      vectors: ``embeddings``; None if no field has vectors.
    """

    linear: FirstOrder | None
    vectors: Embeddings | None

    @property
    def first_order(self) -> FirstOrder:
        """The linear term of each field, [B, F]."""
        assert self.linear is not None, "the table has no first-order weights"
        return self.linear

    @property
    def embeddings(self) -> Embeddings:
        """e_f of each field that has vectors, [B, F, D]."""
        assert self.vectors is not None, "the table has no vectors"
        return self.vectors


class Inputs(nn.Module):
    """Turns the rows of a batch, their values and dense numbers into ``Fields``.

    A field of ids has e_f = x v if it has one slot; otherwise its encoder computes e_f from all
    slots. A dense field of n numbers x has e_f = W^T x with W [n, D], one matrix product. If the
    vectors of a field have their own length d, a matrix [d, D] projects them.

    Source: Ginart et al. 2019, "Mixed Dimension Embeddings with Application to Memory-Efficient
      Recommendation Systems", Sec. 2 (arXiv 1909.11810), for the projections.

    Attributes:
      layout: Layout of the table, with the fields.
      init_std: Standard deviation of the initialiser of W, as for the table's vectors. First-order
        weights of dense fields start at 0.
      dtype: Dtype of parameters, ``"float32"`` or ``"float64"``. Values and dense numbers are
        converted to it.
    """

    layout: TableLayout
    init_std: float = 0.01
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, rows: Rows, values: Values | None = None, dense: Dense | None = None
    ) -> Fields:
        """Encodes a batch.

        Args:
          rows: Rows of the ids [B, S].
          values: x, [B, S]; None means all 1. An empty slot has value 0.
          dense: Numbers of the dense fields in order, [B, N]; None if there are no dense fields.

        Raises:
          UserError: values or dense numbers are missing although fields need them, or have the
            wrong shape, which would otherwise broadcast or be cut.
        """
        features = self.layout.features
        self._check(rows, values, dense)
        values = None if values is None else jnp.asarray(values, self.dtype)
        dense = None if dense is None else jnp.asarray(dense, self.dtype)
        first_order, vectors = [], []
        for run in _runs(self.layout):
            if features[run[0]].is_dense:
                assert dense is not None  # Checked above.
                linear, embedded = self._project_dense(run[0], dense)
            else:
                linear, embedded = self._encode(run, rows.arrays, values)
            first_order += [] if linear is None else [linear]
            vectors += [] if embedded is None else [embedded]
        return Fields(_concatenated(first_order), _concatenated(vectors))

    def _check(self, rows: Rows, values: Values | None, dense: Dense | None) -> None:
        features = self.layout.features
        batch = next(iter(rows.arrays.values())).shape[0] if rows.arrays else None
        slots = sum(slot_counts(features))
        if values is None:
            if max(slot_counts(features)) > 1:
                raise UserError("a field has several slots: pass values, with 0 in empty slots")
        elif values.ndim != 2 or values.shape[1] != slots or batch not in (None, values.shape[0]):
            raise UserError(
                f"values have shape {values.shape}, but ids have shape {(batch, slots)}; pass one "
                "value for each id"
            )
        size = dense_size(features)
        shape = None if dense is None else dense.shape
        fits = shape is not None and shape[1:] == (size,) and batch in (None, shape[0])
        if (size and not fits) or (dense is not None and not (fits or shape == (batch, 0))):
            raise UserError(
                f"dense numbers have shape {shape}; the model reads [batch, {size}], the numbers "
                "of its dense fields in order"
            )

    def _encode(
        self, run: list[int], arrays: Mapping[str, AnyArray], values: Values | None
    ) -> tuple[AnyArray | None, AnyArray | None]:
        """First-order terms [B, F'] and vectors [B, F', D] of one run of fields (see ``_runs``)."""
        feature = self.layout.features[run[0]]
        encoder = None
        if feature.slots > 1:
            encoder = _encoder(feature.pooling)(name=f"encoder_{run[0]}")
        of_run = None
        if values is not None:
            start = sum(slot_counts(self.layout.features)[: run[0]])
            of_run = values[:, start : start + len(run) * feature.slots]
        linear = vectors = None
        if self.layout.first_order:
            read = self._slots_of_run(run, "first_order", arrays)
            linear = _linear_terms(read, of_run, encoder, feature.slots)
        array = self.layout.vectors_of(run[0])
        if array is not None:
            read = self._slots_of_run(run, array, arrays)
            vectors = self._projected(run, _pooled(read, of_run, encoder, feature.slots))
        return linear, vectors

    def _slots_of_run(self, run: list[int], array: str, arrays: Mapping[str, AnyArray]) -> AnyArray:
        """The rows of an array that consecutive fields read, [B, slots, ...]."""
        space = self.layout.space_of(array)
        counts = [self.layout.features[field].slots for field in space.fields]
        place = space.fields.index(run[0])
        start = sum(counts[:place])
        return arrays[array][:, start : start + sum(counts[place : place + len(run)])]

    def _projected(self, run: list[int], vectors: AnyArray) -> AnyArray:
        """Vectors of length D; vectors of another length are projected by a matrix per field."""
        if vectors.shape[2] == self.layout.dim:
            return vectors
        init = nn.initializers.glorot_normal()
        projected = [
            nn.Dense(
                self.layout.dim,
                use_bias=False,
                kernel_init=init,
                param_dtype=working_dtype(vectors),
                name=f"projection_{field}",
            )(vectors[:, place])
            for place, field in enumerate(run)
        ]
        return jnp.stack(projected, axis=1)

    def _project_dense(
        self, field: int, dense: Dense
    ) -> tuple[Float[Array, "batch 1"] | None, Embeddings | None]:
        features = self.layout.features
        size, own = features[field].size, features[field].dim
        start = dense_size(features[:field])
        numbers = dense[:, start : start + size]
        linear = vectors = None
        if self.layout.first_order:
            zeros = nn.initializers.zeros
            weights = self.param(
                f"dense_{field}_first_order", zeros, (size,), jnp.dtype(self.dtype)
            )
            linear = jnp.einsum("bn,n->b", numbers, weights)[:, None]
        length = self.layout.dim if own is None else own
        if self.layout.dim and length:
            init = nn.initializers.normal(self.init_std)
            kernel = self.param(
                f"dense_{field}_kernel", init, (size, length), jnp.dtype(self.dtype)
            )
            vectors = self._projected([field], (numbers @ kernel)[:, None, :])
        return linear, vectors


def _encoder(name: str) -> type[InputEncoder]:
    if name not in ENCODERS:
        raise UserError(f"pooling={name!r} is unknown; use one of {sorted(ENCODERS)}")
    return ENCODERS[name]


def _runs(layout: TableLayout) -> list[list[int]]:
    """Runs of consecutive fields that can be encoded together; a dense field is its own run."""

    def key(field: int):
        feature = layout.features[field]
        pooling = feature.pooling if feature.slots > 1 else ""
        dense_field = field if feature.is_dense else None
        return dense_field, layout.vectors_of(field), feature.slots, pooling

    return [list(run) for _, run in itertools.groupby(range(len(layout.features)), key)]


def _linear_terms(
    read: AnyArray, values: Values | None, encoder: InputEncoder | None, slots: int
) -> AnyArray:
    """First-order terms [B, F'] of fields with ``slots`` slots each; ``read`` is [B, F' slots]."""
    if values is None:
        return read
    if encoder is None:
        return read * values
    weights = encoder.weights(_by_field(values, slots))
    # Empty slots read NaN.
    return jnp.einsum("bfk,bfk->bf", weights, _by_field(jnp.where(values != 0, read, 0.0), slots))


def _pooled(
    read: AnyArray, values: Values | None, encoder: InputEncoder | None, slots: int
) -> AnyArray:
    """Vectors [B, F', D] of fields with ``slots`` slots each; ``read`` is [B, F' slots, D]."""
    if values is None:
        return read
    if encoder is None:
        return read * values[:, :, None]
    vectors = _by_field(jnp.where((values != 0)[:, :, None], read, 0.0), slots)
    return encoder(vectors, _by_field(values, slots))


def _by_field(array: AnyArray, slots: int) -> AnyArray:
    """Reshapes [B, F' K, ...] to [B, F', K, ...]."""
    batch, width, *dim = array.shape
    return jnp.reshape(array, (batch, width // slots, slots, *dim))


def _concatenated(parts: list[AnyArray]) -> AnyArray | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return jnp.concatenate(parts, axis=1)
