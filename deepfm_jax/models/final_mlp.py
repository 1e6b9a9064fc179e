"""FinalMLP: two towers, a gate before each, a bilinear product of what they put out."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.embedding import EmbeddingTable, Rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import FieldDims
from deepfm_jax.layers import MLP, BilinearFusion, FeatureGate
from deepfm_jax.models.hyperparameters import check_hyperparameters
from deepfm_jax.typing import Ids, Logits, Values


class FinalMLP(nn.Module):
    """Two-stream MLP: logit = fusion(tower_1(gate_1(e)), tower_2(gate_2(e))).

    Both streams read the same embeddings; their gates, which see different context, and their sizes
    make them different. No first order: the fusion has a linear term of each stream.

    Attributes:
      field_dims: Rows of each field.
      embed_dim: D, length of the latent vectors.
      mlp_dims: Hidden widths of the first stream.
      second_mlp_dims: Hidden widths of the second stream.
      gated: Whether a gate stands before each stream.
      gate_dims: Hidden widths of both gates.
      context: Positions of the fields that the first gate sees; empty for a learnt vector.
      second_context: The same for the second gate.
      shared_context: Whether the gates see the same vectors of those fields as the streams read;
        False gives them vectors of their own (for every field, at twice the size of the table).
      heads: Heads of the bilinear fusion, a divisor of both streams' last widths.
      dropout: Probability of dropping a hidden unit of a stream in training.
      batch_norm: Whether the streams normalise their blocks.
      init_std: Standard deviation of the vectors' initialiser.
      table_dtype: What the table is stored in, ``"float32"`` or ``"bfloat16"``.
      compute_dtype: What the streams multiply in, likewise, or ``"auto"`` (see ``MLP``); sums are
        float32.

    Source: Mao et al. 2023, "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction" (arXiv
      2304.00902). It does not say whose vectors a gate sees; the authors' code has a second table
      for them, which is ``shared_context=False`` here. Deviation: see ``FeatureGate`` for the
      learnt vector.
    """

    field_dims: FieldDims
    embed_dim: int = 16
    mlp_dims: Sequence[int] = (400, 400, 400)
    second_mlp_dims: Sequence[int] = (400, 400, 400)
    gated: bool = True
    gate_dims: Sequence[int] = (64,)
    context: Sequence[int] = ()
    second_context: Sequence[int] = ()
    shared_context: bool = True
    heads: int = 1
    dropout: float = 0.2
    batch_norm: bool = False
    init_std: float = 0.01
    table_dtype: str = "float32"
    compute_dtype: str = "float32"

    def setup(self):
        check_hyperparameters(self)
        # Vectors for the gates are the second halves of longer ones: one lookup serves both.
        width = self.embed_dim if self.shared_context else 2 * self.embed_dim
        self.table = EmbeddingTable(
            self.field_dims, width, self.init_std, self.table_dtype, first_order=False
        )
        if self.gated:
            self.gates = [FeatureGate(self.gate_dims) for _ in range(2)]
        self.streams = [
            MLP(
                dims,
                out_dim=None,
                dropout=self.dropout,
                batch_norm=self.batch_norm,
                compute_dtype=self.compute_dtype,
            )
            for dims in (self.mlp_dims, self.second_mlp_dims)
        ]
        self.fusion = BilinearFusion(self.heads)

    def check_together(self) -> None:
        """Checks fields of context, and heads; see ``check_hyperparameters``."""
        for name in ("context", "second_context"):
            for field in getattr(self, name):
                # An index beyond the fields would read the last one: JAX clamps it.
                if field >= len(self.field_dims):
                    raise UserError(
                        f"model.{name}: there is no field {field}; positions are 0 to "
                        f"{len(self.field_dims) - 1}"
                    )
        seen = self.gated and (self.context or self.second_context)
        if not (self.shared_context or seen):
            raise UserError(
                "model.shared_context=False doubles the table for gates that see fields, and none "
                "does: name fields in model.context or model.second_context"
            )
        for name in ("mlp_dims", "second_mlp_dims"):
            dims = getattr(self, name) or (len(self.field_dims) * self.embed_dim,)
            if dims[-1] % self.heads:
                raise UserError(
                    f"model.heads={self.heads} does not divide the last width of model.{name}, "
                    f"which is {dims[-1]}"
                )

    def __call__(self, ids: Ids, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] of ids [B, S] and values [B, S] (all 1 when None); see ``models``."""
        return self.from_rows(self.table(ids), values, train=train)

    def from_rows(self, rows: Rows, values: Values | None = None, *, train: bool = False) -> Logits:
        """Logits [B] from rows gathered already."""
        embeddings = for_gates = rows.embeddings(values)
        if not self.shared_context:
            embeddings, for_gates = jnp.split(embeddings, 2, axis=2)
        flat = embeddings.reshape(embeddings.shape[0], -1)
        outputs = []
        for index, fields in enumerate((self.context, self.second_context)):
            inputs = flat
            if self.gated:
                # Slices and not one gather, whose gradient a GPU would add by atomics.
                seen = [for_gates[:, field] for field in fields]
                inputs = self.gates[index](flat, jnp.concatenate(seen, axis=1) if seen else None)
            outputs.append(self.streams[index](inputs, train=train))
        return self.fusion(*outputs)
