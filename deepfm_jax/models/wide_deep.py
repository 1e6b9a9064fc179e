"""Wide & Deep: memorised crosses beside a tower."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from deepfm_jax.errors import UserError
from deepfm_jax.features import Feature, as_features
from deepfm_jax.inputs import Fields
from deepfm_jax.models.model import Outputs, TowerModel, flatten


class WideDeep(TowerModel):
    """logit = w^T [x, phi(x)] + tower([e_1, ..., e_F]) + b (Eq. 3), both parts trained together.

    phi(x) are declared cross products of columns (Eq. 1): fields whose ids the encoder hashes
    (``schema.Cross``), marked ``Feature.crossed``. The wide part reads all fields, the deep part
    only those that are not crosses, which have no vectors. Wide and deep share no weights: the wide
    part has first-order weights, the deep part vectors, and each may have its own optimizer.

    Source: Cheng et al. 2016, "Wide & Deep Learning for Recommender Systems" (arXiv 1606.07792).
      Without crosses it is the "LR & DNN" of Guo et al. 2017.
    """

    @property
    def features(self) -> tuple[Feature, ...]:
        """The fields; crosses have only first-order weights."""
        return tuple(
            dataclasses.replace(feature, dim=0) if feature.crossed else feature
            for feature in as_features(self.field_dims)
        )

    def check_together(self) -> None:
        """Checks that the tower has a field; see ``check_hyperparameters``."""
        if all(feature.dim == 0 for feature in self.features):
            raise UserError("wide_deep: every field is a cross, so the tower has none to read")

    @nn.compact
    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """Logit, and the linear terms beside the tower's last hidden layer, [B, F + H]."""
        deep, hidden = self.make_tower().with_hidden(flatten(fields.embeddings), train=train)
        logit = self.first_order_logit(fields) + deep[:, 0]
        return Outputs(logit, jnp.concatenate([fields.first_order, hidden], axis=1))
