"""Logistic regression, the first-order part of the other models."""

import flax.linen as nn

from deepfm_jax.inputs import Fields
from deepfm_jax.models.model import Model, Outputs


class LR(Model):
    """Logistic regression: logit = w_0 + sum_i w_i x_i.

    It models no interaction between fields.

    Source: the baseline of Guo et al. 2017, Table 2 (arXiv 1703.04247).
    """

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the linear terms [B, F]."""
        return Outputs(self.first_order_logit(fields), fields.first_order)
