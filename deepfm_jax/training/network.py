"""A network: a model and the head on top of it, trained and scored as one."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deepfm_jax.embedding import Rows
from deepfm_jax.errors import UserError
from deepfm_jax.features import dense_size, slot_counts
from deepfm_jax.heads import Head, OneTask
from deepfm_jax.models import Model
from deepfm_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Network:
    """A model under a head, as pure functions of parameters and a batch.

    The parameters are the model's own tree, with the head's parameters, if any, under ``head``. A
    batch is a dict of ``ids`` [B, S]; if fields need them, ``values`` [B, S] and ``dense`` [B, N];
    and in training ``labels`` [B, T] and ``mask`` [B].

    Attributes:
      model: Maps fields to a logit and a hidden representation.
      head: Maps these to the logits of all tasks.
    """

    model: Model
    head: Head = dataclasses.field(default_factory=OneTask)

    def init(self, key: jax.Array, stripes: int = 1) -> tuple[PyTree, PyTree]:
        """Initializes parameters and batch statistics, identically for any number of stripes.

        Args:
          key: Random key.
          stripes: Number of shards over which the table's rows are striped (see
            ``embedding.stripes``).

        Raises:
          UserError: the model has parameters where those of the head belong.
        """
        features = self.model.features
        ids = jnp.zeros((1, sum(slot_counts(features))), jnp.int32)
        inputs = (ids, jnp.ones(ids.shape, jnp.float32), jnp.zeros((1, dense_size(features))))
        outputs, variables = self.model.init_with_output(key, *inputs, method="outputs")
        params = variables["params"]
        if stripes > 1:  # Nothing reads the table above, so under jit it is never created.
            layout = self.model.init(key, ids, method=lambda model, ids: model.table(ids, stripes))
            params = {**params, "table": layout["params"]["table"]}
        of_head = self.head.init(jax.random.fold_in(key, zlib.crc32(b"head")), *outputs)
        if of_head:
            if "head" in params:
                raise UserError("the model has a part named 'head', as its head is; rename it")
            params = {**params, "head": of_head["params"]}
        return params, variables.get("batch_stats", {})

    def logits(self, params: PyTree, batch_stats: PyTree, batch: Any, rows: Rows | None = None):
        """Computes logits [B, T] in evaluation mode.

        Args:
          params: Parameters; the table's may be omitted if ``rows`` is given.
          batch_stats: Running statistics of batch norm.
          batch: See the class.
          rows: The table's rows of the batch, if they are already gathered.
        """
        method, inputs = _inputs(batch, rows)
        variables = {"params": params, "batch_stats": batch_stats}
        return self._of_head(params, self.model.apply(variables, *inputs, method=method))

    def loss(
        self,
        params: PyTree,
        batch_stats: PyTree,
        batch: Any,
        key: jax.Array,
        rows: Rows | None = None,
    ) -> tuple[jax.Array, PyTree]:
        """Computes the training loss of a batch and batch norm's new statistics.

        Args:
          params: As in ``logits``.
          batch_stats: As in ``logits``.
          batch: As in ``logits``, with labels and mask.
          key: Random key of dropout.
          rows: As in ``logits``.
        """
        method, inputs = _inputs(batch, rows)
        outputs, changed = self.model.apply(
            {"params": params, "batch_stats": batch_stats},
            *inputs,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
            method=method,
        )
        logits = self._of_head(
            params, outputs, train=True, rngs={"dropout": jax.random.fold_in(key, 1)}
        )
        loss = self.head.loss(logits, batch["labels"], batch["mask"])
        moved = changed.get("batch_stats", {})
        return loss, _moved_by_share(batch_stats, moved, batch["mask"]) if moved else moved

    def _of_head(self, params: PyTree, outputs: Any, **options: Any) -> jax.Array:
        return self.head.apply({"params": params.get("head", {})}, *outputs, **options)  # pyright: ignore[reportReturnType]


def _moved_by_share(old: PyTree, new: PyTree, mask: Any) -> PyTree:
    """Moves batch norm's statistics in proportion to the share of real examples in the batch.

    The last batch of a pass is padded by repeating its own examples with mask 0. Without this, a
    last batch of one example would move the running statistics as far as a full batch.
    """
    share = jnp.mean(jnp.asarray(mask) > 0, dtype=jnp.float32)
    return jax.tree.map(
        lambda before, after: jnp.where(share == 1, after, before + share * (after - before)),
        old,
        new,
    )


def _inputs(batch: Any, rows: Rows | None) -> tuple[str, tuple]:
    """The model's method that reads a batch, and the arguments for it."""
    numbers = (batch.get("values"), batch.get("dense"))
    return (
        ("outputs", (batch["ids"], *numbers)) if rows is None else ("from_rows", (rows, *numbers))
    )


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a batch that scoring reads; any other set would compile another program."""
    return {name: batch[name] for name in ("ids", "values", "dense") if name in batch}
