"""A tower over embeddings: the deep part of the DeepFM family."""

import flax.linen as nn

from deepfm_jax.inputs import Fields
from deepfm_jax.models.model import Outputs, TowerModel, flatten


class DNN(TowerModel):
    """Deep part only: logit = tower([e_1, ..., e_F]), without first order or explicit interactions.

    Source: the deep component of Guo et al. 2017, Eq. 3 and 4 (arXiv 1703.04247), alone as in one
      of the paper's ablations.
    """

    first_order = False

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the tower's last hidden layer."""
        logit, hidden = self.make_tower().with_hidden(flatten(fields.embeddings), train=train)
        return Outputs(logit[:, 0], hidden)
