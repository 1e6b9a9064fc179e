"""AutoInt: self-attention between fields."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import PositiveInt, ShareBelowOne
from deepfm_jax.inputs import Fields
from deepfm_jax.layers import InteractingLayer
from deepfm_jax.models.model import Outputs, TowerModel, flatten
from deepfm_jax.precision import working_dtype


class AutoInt(TowerModel):
    """logit = w^T [e^Res_1, ..., e^Res_F] + b (Eq. 9), after layers of attention between fields.

    With ``mlp_dims`` a tower over the embeddings is added: AutoInt+. Each layer's attention is sown
    into the collection ``intermediates`` (see ``InteractingLayer``):

      logits, found = model.apply(variables, ids, mutable=["intermediates"])
      found["intermediates"]["interacting_0"]["attention"][0]  # [B, attention heads, F, F]

    Attributes:
      attention_layers: Interacting layers, at least one.
      heads: Attention heads of each layer.
      head_dim: Width of an attention head.
      residual: Whether each layer adds a projection of its input.
      scaled: Whether attention is scaled by 1 / sqrt(head_dim), which the paper does not do.
      mlp_dims: Widths of the tower's hidden layers; empty for AutoInt, without a tower.
      dropout: Probability of dropping a hidden unit of the tower in training.

    Source: Song et al. 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive
      Neural Networks", Eq. 5 to 9 and Sec. 5.5 (arXiv 1810.11921). Deviation: only the tower has
      dropout; the paper also uses it in AutoInt itself, on the smallest of its data sets.
    """

    attention_layers: PositiveInt = 3
    heads: PositiveInt = 2
    head_dim: PositiveInt = 32
    residual: bool = True
    scaled: bool = False
    mlp_dims: Sequence[PositiveInt] = ()
    dropout: ShareBelowOne = 0.0

    first_order = False
    has_small_products = True

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and e^Res beside the tower's last hidden layer."""
        attended = fields.embeddings
        for layer in range(self.attention_layers):
            attended = InteractingLayer(
                self.heads, self.head_dim, self.residual, self.scaled, name=f"interacting_{layer}"
            )(attended)
        hidden = [flatten(attended)]
        init = nn.initializers.glorot_normal()
        dtype = working_dtype(hidden[0])
        logit = nn.Dense(1, kernel_init=init, param_dtype=dtype, name="out")(hidden[0])[:, 0]
        if self.mlp_dims:
            deep, last = self.make_tower().with_hidden(flatten(fields.embeddings), train=train)
            logit += deep[:, 0]
            hidden.append(last)
        return Outputs(logit, jnp.concatenate(hidden, axis=1))
