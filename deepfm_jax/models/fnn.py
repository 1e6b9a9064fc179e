"""FNN: a tower that starts from a factorization machine."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.inputs import Fields
from deepfm_jax.models.model import Outputs, TowerModel, flatten
from deepfm_jax.precision import working_dtype
from deepfm_jax.shardings import sharding_like


class FNN(TowerModel):
    """Factorisation-machine supported neural network: logit = tower([w_0, z_1, ..., z_F]).

    z_i = (w_i x_i, v_i x_i) is the first-order weight and the latent vector of field i. The module
    is the second of two stages: its ``bias`` and ``table`` have the names and shapes of ``FM``'s,
    whose trained weights must be copied there first (a run's ``pretraining`` section does both
    stages). Without them, it is a tower over fields of D + 1 numbers.

    Attributes:
      activation: Activation of the hidden layers, ``"tanh"`` as in the paper or ``"relu"``.

    Source: Zhang et al. 2016, "Deep Learning over Multi-field Categorical Data", Sec. 3.1 (arXiv
      1601.02376). As in the paper, the second stage also trains the table. Deviation: the paper
      first trains the hidden layers one by one, as restricted Boltzmann machines by contrastive
      divergence; here they start at random.
    """

    activation: Literal["tanh", "relu"] = "tanh"

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the tower's last hidden layer."""
        z = jnp.concatenate([fields.first_order[:, :, None], fields.embeddings], axis=2)
        w_0 = self.param("bias", nn.initializers.zeros, (), working_dtype(z))
        w_0 = jnp.broadcast_to(w_0, (z.shape[0], 1), out_sharding=sharding_like(2, z))
        inputs = jnp.concatenate([w_0, flatten(z)], axis=1)
        tower = self.make_tower(activation=self.activation)
        logit, hidden = tower.with_hidden(inputs, train=train)
        return Outputs(logit[:, 0], hidden)
