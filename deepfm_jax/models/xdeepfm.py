"""xDeepFM: a compressed interaction network beside a tower."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import PositiveInt
from deepfm_jax.errors import UserError
from deepfm_jax.inputs import Fields
from deepfm_jax.layers import CompressedInteractionNetwork
from deepfm_jax.models.model import Outputs, TowerModel, flatten
from deepfm_jax.precision import working_dtype


class XDeepFM(TowerModel):
    """logit = w^T x + w_cin^T p^+ + tower([e_1, ..., e_F]) + b (Eq. 9), over one embedding.

    p^+ are the pooled feature maps of the compressed interaction network. Without ``mlp_dims``
    there is no tower (the paper's Sec. 4.2, CIN).

    Attributes:
      cin_dims: Feature maps of each CIN layer; empty for no CIN.
      split_half: Whether half of each CIN layer's maps are output and the other half passed on.

    Source: Lian et al. 2018, "xDeepFM: Combining Explicit and Implicit Feature Interactions for
      Recommender Systems" (arXiv 1803.05170): Sec. 4.2 evaluates only CIN, Sec. 4.3 the full model.
    """

    cin_dims: Sequence[PositiveInt] = (128, 128)
    split_half: bool = True

    def check_together(self) -> None:
        """Checks that layers can be split; see ``check_hyperparameters``."""
        for layer, width in enumerate(self.cin_dims[:-1]):
            if self.split_half and width % 2:
                raise UserError(
                    f"model.cin_dims[{layer}]={width} is odd and cannot be split in half; make it "
                    "even, or set model.split_half=False"
                )

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the linear terms, p^+ and the tower's last hidden layer side by side."""
        logit, hidden = self.first_order_logit(fields), [fields.first_order]
        if self.cin_dims:
            cin = CompressedInteractionNetwork(self.cin_dims, self.split_half, name="cin")
            pooled = cin(fields.embeddings)
            init = nn.initializers.glorot_normal()
            out = nn.Dense(
                1,
                use_bias=False,
                kernel_init=init,
                param_dtype=working_dtype(pooled),
                name="cin_out",
            )
            logit += out(pooled)[:, 0]
            hidden.append(pooled)
        if self.mlp_dims:
            flat = flatten(fields.embeddings)
            deep, last = self.make_tower().with_hidden(flat, train=train)
            logit += deep[:, 0]
            hidden.append(last)
        return Outputs(logit, jnp.concatenate(hidden, axis=1))
