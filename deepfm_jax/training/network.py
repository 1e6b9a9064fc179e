"""A model under a head: what is trained and scored as one."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deepfm_jax.embedding import Rows
from deepfm_jax.features import dense_size, slot_counts
from deepfm_jax.heads import Head, OneTask
from deepfm_jax.models import Model
from deepfm_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Network:
    """Pure functions of parameters and a batch.

    The parameters are the model's, in its own tree, with those of the head, if it has any, under
    ``head``. A batch is a dict of ``ids`` [B, S]; where fields need them ``values`` [B, S] and
    ``dense`` [B, N]; and in training ``labels`` [B, T] and ``mask`` [B].

    Attributes:
      model: From fields to a logit and a hidden representation.
      head: From these to the logits of all tasks.
    """

    model: Model
    head: Head = dataclasses.field(default_factory=OneTask)

    def init(self, key: jax.Array, stripes: int = 1) -> tuple[PyTree, PyTree]:
        """The first parameters and batch statistics, the same on any number of stripes.

        Args:
          key: Random key.
          stripes: Shards over which the table's rows are striped (see ``embedding.stripes``).
        """
        features = self.model.features
        ids = jnp.zeros((1, sum(slot_counts(features))), jnp.int32)
        inputs = (ids, jnp.ones(ids.shape, jnp.float32), jnp.zeros((1, dense_size(features))))
        outputs, variables = self.model.init_with_output(key, *inputs, method="outputs")
        params = variables["params"]
        if stripes > 1:  # The table above, which nothing reads, is never made under jit.
            layout = self.model.init(key, ids, method=lambda model, ids: model.table(ids, stripes))
            params = {**params, "table": layout["params"]["table"]}
        of_head = self.head.init(jax.random.fold_in(key, zlib.crc32(b"head")), *outputs)
        if of_head:
            params = {**params, "head": of_head["params"]}
        return params, variables.get("batch_stats", {})

    def logits(self, params: PyTree, batch_stats: PyTree, batch: Any, rows: Rows | None = None):
        """Logits [B, T] in evaluation.

        Args:
          params: Parameters; the table's may be left out where ``rows`` are given.
          batch_stats: Batch norm's running statistics.
          batch: See the class.
          rows: The table's rows of the batch, if they were gathered before.
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
        """The training loss of a batch, and batch norm's new statistics; see ``logits``.

        Args:
          params: As in ``logits``.
          batch_stats: As in ``logits``.
          batch: With labels and mask.
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
    """Batch norm's statistics, moved in proportion to the share of real examples in the batch.

    The last batch of a pass is filled up by repeating its own examples, under mask 0. Without this,
    a last batch of one example would move the running statistics as far as a full one.
    """
    share = jnp.mean(jnp.asarray(mask) > 0, dtype=jnp.float32)
    return jax.tree.map(
        lambda before, after: jnp.where(share == 1, after, before + share * (after - before)),
        old,
        new,
    )


def _inputs(batch: Any, rows: Rows | None) -> tuple[str, tuple]:
    """The model's method that reads a batch, and its arguments."""
    numbers = (batch.get("values"), batch.get("dense"))
    return (
        ("outputs", (batch["ids"], *numbers)) if rows is None else ("from_rows", (rows, *numbers))
    )


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What scoring reads of a batch; another set of arrays would compile another program."""
    return {name: batch[name] for name in ("ids", "values", "dense") if name in batch}
