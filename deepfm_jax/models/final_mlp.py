"""FinalMLP: two towers with a gate before each, and a bilinear fusion of their outputs."""

from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import DISTINCT, NonNegativeInt, PositiveInt
from deepfm_jax.errors import UserError
from deepfm_jax.inputs import Fields
from deepfm_jax.layers import BilinearFusion, FeatureGate
from deepfm_jax.models.model import Outputs, TowerModel, flatten


class FinalMLP(TowerModel):
    """Two-stream MLP: logit = fusion(tower_1(gate_1(e)), tower_2(gate_2(e))).

    Both streams read the same embeddings; they differ by their sizes and by the context of their
    gates. There is no first order, because the fusion has a linear term for each stream.

    Attributes:
      mlp_dims: Hidden widths of the first stream.
      second_mlp_dims: Hidden widths of the second stream.
      gated: Whether each stream has a gate before it.
      gate_dims: Hidden widths of both gates.
      context: Positions of the fields that the first gate reads; empty for a learned vector.
      second_context: The same for the second gate.
      shared_context: Whether the gates read the same vectors of these fields as the streams; False
        gives the gates their own (for every field, which doubles the table).
      heads: Number of parts of the bilinear fusion, a divisor of both streams' last widths.

    Source: Mao et al. 2023, "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction" (arXiv
      2304.00902). The paper does not specify which vectors a gate reads; the authors' code has a
      second table for them, which is ``shared_context=False`` here. Deviation: see ``FeatureGate``
      for the learned vector.
    """

    second_mlp_dims: Sequence[PositiveInt] = (400, 400, 400)
    gated: bool = True
    gate_dims: Sequence[PositiveInt] = (64,)
    context: Annotated[Sequence[NonNegativeInt], DISTINCT] = ()
    second_context: Annotated[Sequence[NonNegativeInt], DISTINCT] = ()
    shared_context: bool = True
    heads: PositiveInt = 1

    first_order = False

    @property
    def vectors_dim(self) -> int:
        """D, or 2 D: vectors for the gates are the second halves of longer vectors."""
        return self.embed_dim if self.shared_context else 2 * self.embed_dim

    def check_together(self) -> None:
        """Checks context fields and heads; see ``check_hyperparameters``."""
        vectors = sum(feature.dim != 0 for feature in self.features)
        for name in ("context", "second_context"):
            for field in getattr(self, name):
                # JAX would clamp an index out of range to the last field.
                if field >= vectors:
                    raise UserError(
                        f"model.{name}: there is no field {field}; positions are 0 to {vectors - 1}"
                    )
        seen = self.gated and (self.context or self.second_context)
        if not (self.shared_context or seen):
            raise UserError(
                "model.shared_context=False doubles the table for gates that read fields, but none "
                "does: name fields in model.context or model.second_context"
            )
        for name in ("mlp_dims", "second_mlp_dims"):
            dims = getattr(self, name) or (vectors * self.embed_dim,)
            if dims[-1] % self.heads:
                raise UserError(
                    f"model.heads={self.heads} does not divide the last width of model.{name}, "
                    f"which is {dims[-1]}"
                )

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the outputs of both streams side by side."""
        embeddings = for_gates = fields.embeddings
        if not self.shared_context:
            embeddings, for_gates = jnp.split(embeddings, 2, axis=2)
        flat = flatten(embeddings)
        outputs = []
        contexts, widths = (
            (self.context, self.second_context),
            (self.mlp_dims, self.second_mlp_dims),
        )
        for index, (context, mlp_dims) in enumerate(zip(contexts, widths, strict=True)):
            inputs = flat
            if self.gated:
                # Slices instead of one gather, whose gradient a GPU would add by atomics.
                seen = [for_gates[:, field] for field in context]
                gate = FeatureGate(self.gate_dims, name=f"gates_{index}")
                inputs = gate(flat, jnp.concatenate(seen, axis=1) if seen else None)
            stream = self.make_tower(f"streams_{index}", mlp_dims, out_dim=None)
            outputs.append(stream(inputs, train=train))
        logit = BilinearFusion(self.heads, name="fusion")(*outputs)
        return Outputs(logit, jnp.concatenate(outputs, axis=1))
