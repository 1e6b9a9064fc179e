"""DCN-V2: a cross network and a tower, one after the other or side by side."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.annotations import NonNegativeInt, PositiveInt
from deepfm_jax.inputs import Fields
from deepfm_jax.layers import CrossNetwork, LowRankCrossNetwork
from deepfm_jax.models.model import Outputs, TowerModel, flatten
from deepfm_jax.precision import working_dtype


class DCNv2(TowerModel):
    """Improved deep & cross network: logit = w^T x_final + b.

    In the stacked structure, x_final is the last hidden layer of a tower over the cross network's
    output; in the parallel one, it is the cross network's output and the tower's last hidden layer
    side by side (Fig. 1). Without ``mlp_dims`` the model is only the cross network.

    Attributes:
      cross_layers: Number of layers of the cross network; 0 for none.
      rank: R of a mixture of low-rank cross layers; 0 for full matrices.
      experts: Number of experts of each low-rank layer.
      structure: ``"stacked"`` or ``"parallel"``.

    Source: Wang et al. 2021, "DCN V2: Improved Deep & Cross Network and Practical Lessons for
      Web-scale Learning to Rank Systems", Sec. 3 (arXiv 2008.13535). Deviation: the paper's last
      layer has no b.
    """

    cross_layers: NonNegativeInt = 3
    rank: NonNegativeInt = 0
    experts: PositiveInt = 4
    structure: Literal["stacked", "parallel"] = "parallel"

    first_order = False

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and x_final."""
        x_0 = flatten(fields.embeddings)
        if self.rank:
            cross = LowRankCrossNetwork(self.cross_layers, self.rank, self.experts, name="cross")
        else:
            cross = CrossNetwork(self.cross_layers, name="cross")
        tower = self.make_tower(out_dim=None)
        crossed = cross(x_0)
        if self.structure == "stacked":
            x_final = tower(crossed, train=train)
        elif self.mlp_dims:
            x_final = jnp.concatenate([crossed, tower(x_0, train=train)], axis=1)
        else:
            x_final = crossed
        init, dtype = nn.initializers.glorot_normal(), working_dtype(x_final)
        logit = nn.Dense(1, kernel_init=init, param_dtype=dtype, name="out")(x_final)
        return Outputs(logit[:, 0], x_final)
