"""The base classes of models: fields, table, inputs, and the methods to call them."""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepfm_jax.annotations import PositiveFloat, PositiveInt, ShareBelowOne
from deepfm_jax.embedding import EmbeddingTable, Rows, TableLayout, table_layout
from deepfm_jax.features import Feature, FieldDims, as_features
from deepfm_jax.hyperparameters import check_hyperparameters
from deepfm_jax.inputs import Fields, Inputs
from deepfm_jax.layers import MLP
from deepfm_jax.precision import table_dtype, working_dtype
from deepfm_jax.typing import AnyArray, Dense, Embeddings, Ids, Logits, Values


class Outputs(NamedTuple):
    """The outputs of a model, which its head reads.

    Attributes:
      logit: Logit of the model's own task, [B].
      hidden: Input of the model's last linear layer, [B, H]: the representation that the towers of
        several tasks share.
    """

    logit: Logits
    hidden: Float[AnyArray, "batch hidden"]


class Model(nn.Module):
    """A map from fields to a logit: ``interact``, which each paper's file defines.

    Attributes:
      field_dims: Number of rows of each field, or a ``Feature`` for a field that has several slots,
        shares the rows of another, or is dense.
      table_dtype: Dtype of the table, ``"float32"``, ``"bfloat16"`` or ``"float64"``. With float64,
        which needs JAX's 64-bit mode, the whole model is float64: parameters, products and logits.
        Otherwise everything except the table is float32.
    """

    field_dims: FieldDims
    table_dtype: Literal["float32", "bfloat16", "float64"] = "float32"

    # Whether the table has first-order weights.
    first_order: ClassVar[bool] = True
    # Whether most matrix products are small and per example, as in attention.
    has_small_products: ClassVar[bool] = False

    def __post_init__(self):
        # Lists become tuples, because JAX caches programs only of hashable modules.
        for name, value in list(vars(self).items()):
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        super().__post_init__()

    def setup(self):
        check_hyperparameters(self)
        self.table = EmbeddingTable(self.layout, self.vectors_std, self.table_dtype)
        dtype = working_dtype(table_dtype(self.table_dtype))
        self.inputs = Inputs(self.layout, self.vectors_std, dtype.name)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The fields as the model reads them."""
        return as_features(self.field_dims)

    @property
    def vectors_dim(self) -> int:
        """Length of a field's vectors in the table; 0 for none."""
        return 0

    @property
    def vectors_std(self) -> float:
        """Standard deviation of the vectors' initializer."""
        return 0.0

    @property
    def layout(self) -> TableLayout:
        """The arrays of the table, and the position of each field's rows."""
        return table_layout(self.features, int(self.vectors_dim), self.first_order)

    def __call__(
        self,
        ids: Ids,
        values: Values | None = None,
        dense: Dense | None = None,
        *,
        train: bool = False,
    ) -> Logits:
        """Computes the logits [B].

        Args:
          ids: [B, S] int32, local to each field.
          values: [B, S]; None for all 1.
          dense: Numbers of dense fields, [B, N]; None if there are none.
          train: Whether dropout is active (with the rng ``dropout``) and batch norm updates its
            statistics (in the collection ``batch_stats``).

        Raises:
          UserError: concrete ids are out of range (see ``embedding.check_ids``), or values or dense
            numbers have the wrong shape.
        """
        return self.outputs(ids, values, dense, train=train).logit

    def outputs(
        self,
        ids: Ids,
        values: Values | None = None,
        dense: Dense | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Logit and last hidden representation; see ``__call__``."""
        return self.from_rows(self.table(ids, values=values), values, dense, train=train)

    def from_rows(
        self,
        rows: Rows,
        values: Values | None = None,
        dense: Dense | None = None,
        *,
        train: bool = False,
    ) -> Outputs:
        """Computes ``outputs`` for a batch whose rows of the table are already gathered."""
        return self.interact(self.inputs(rows, values, dense), train=train)

    def interact(self, fields: Fields, *, train: bool) -> Outputs:
        """The paper's equations; a subclass defines it, as its ``nn.compact`` method."""
        raise NotImplementedError

    def first_order_logit(self, fields: Fields) -> Logits:
        """w_0 plus the fields' linear terms, [B]; creates w_0 as the parameter ``bias``."""
        bias = self.param("bias", nn.initializers.zeros, (), working_dtype(fields.first_order))
        return bias + jnp.einsum("bf->b", fields.first_order)


class EmbeddingModel(Model):
    """A model whose fields have vectors.

    Attributes:
      embed_dim: D, length of the vectors.
      init_std: Standard deviation of the vectors' initializer. With 0, the vectors of a
        factorization machine would have no gradient and stay 0.
    """

    embed_dim: PositiveInt = 16
    init_std: PositiveFloat = 0.01

    @property
    def vectors_dim(self) -> int:
        """D."""
        return self.embed_dim

    @property
    def vectors_std(self) -> float:
        """``init_std``."""
        return self.init_std


class TowerModel(EmbeddingModel):
    """A model with a tower.

    Attributes:
      mlp_dims: Widths of the tower's hidden layers; empty for a linear layer over its input.
      dropout: Probability of dropping a hidden unit in training.
      batch_norm: Whether the tower normalises its blocks.
      compute_dtype: Dtype of the tower's products, ``"float32"``, ``"bfloat16"``, or ``"auto"`` for
        the faster one (see ``MLP``); sums are float32. With a float64 table they are float64.
    """

    mlp_dims: Sequence[PositiveInt] = (400, 400, 400)
    dropout: ShareBelowOne = 0.2
    batch_norm: bool = False
    compute_dtype: Literal["float32", "bfloat16", "auto"] = "float32"

    def make_tower(
        self,
        name: str = "tower",
        mlp_dims: Sequence[int] | None = None,
        *,
        out_dim: int | None = 1,
        activation: str = "relu",
    ) -> MLP:
        """Creates an MLP with the model's settings as the submodule ``name``.

        Args:
          name: Name in the model's parameters.
          mlp_dims: Widths of the hidden layers; None for the model's own.
          out_dim: See ``MLP``.
          activation: See ``MLP``.
        """
        return MLP(
            self.mlp_dims if mlp_dims is None else mlp_dims,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            compute_dtype=self.compute_dtype,
            out_dim=out_dim,
            activation=activation,
            name=name,
        )


def flatten(embeddings: Embeddings) -> Float[Array, "batch width"]:
    """[e_1, ..., e_F] side by side, [B, F D]."""
    return jnp.reshape(embeddings, (embeddings.shape[0], -1))
