"""Checkpoints of a run: the best and the last state, with the position of the loop."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from deepfm_jax.distributed.partitioning import array_path, is_table_rows
from deepfm_jax.embedding import restripe, stripes_of
from deepfm_jax.errors import PreemptedError, UserError
from deepfm_jax.training.state import TrainState, Weights

# Every checkpoint stores all points of the loss, so their number is bounded.
_MAX_LOSSES = 4096
# Prefix of the state's arrays that mark frozen rows.
_FROZEN = "frozen/"
# Devices that hold copies of an array write a part of it each, for which Orbax compiles a program:
# that takes longer than to write an array below this size, which one device writes alone.
_MIN_PART_BYTES = 1 << 20


@dataclasses.dataclass
class Progress:
    """Position of the loop; together with the state, everything that a resumed run needs.

    Attributes:
      epoch: Current epoch, from 0.
      batch: Batches of that epoch already trained on.
      best_score: Best validation score so far (higher is better), None before the first.
      best_step: Step of ``best_score``.
      bad_evaluations: Consecutive evaluations without improvement.
      finished: Whether the run has ended.
      seconds: Time spent in training steps, over all starts.
      examples: Examples trained on in that time.
      fingerprint: Fingerprint of the data set.
      streams: Number of parts in which each pass over the training examples is read.
      train_losses: (step, loss) points, each the mean of ``loss_stride`` consecutive logged losses,
        at the step of the last of them.
      losses_logged: Losses logged so far.
      loss_stride: 1 at first; doubles whenever there are too many points.
      evaluations: Validation metrics with their ``step``.
      waited: Part of ``seconds`` in which the devices were idle, waiting for a batch.
      start_waited: Seconds before the first batch of each pass; not part of ``seconds``.
      held_losses: Losses logged since the last point, fewer than ``loss_stride``.
    """

    epoch: int = 0
    batch: int = 0
    best_score: float | None = None
    best_step: int | None = None
    bad_evaluations: int = 0
    finished: bool = False
    seconds: float = 0.0
    examples: int = 0
    fingerprint: str = ""
    streams: int = 1
    train_losses: list[list[int | float]] = dataclasses.field(default_factory=list)
    losses_logged: int = 0
    loss_stride: int = 1
    evaluations: list[dict[str, int | float]] = dataclasses.field(default_factory=list)
    waited: float = 0.0
    start_waited: float = 0.0
    held_losses: list[float] = dataclasses.field(default_factory=list)

    def add_loss(self, step: int, loss: float) -> None:
        """Logs a loss, and joins points in pairs when there are too many."""
        self.losses_logged += 1
        self.held_losses.append(loss)
        if len(self.held_losses) < self.loss_stride:
            return
        self.train_losses.append([step, sum(self.held_losses) / len(self.held_losses)])
        self.held_losses = []
        if len(self.train_losses) >= _MAX_LOSSES:
            pairs = zip(self.train_losses[::2], self.train_losses[1::2], strict=True)
            self.train_losses = [[step, (one + other) / 2] for (_, one), (step, other) in pairs]
            self.loss_stride *= 2

    @property
    def wait_share(self) -> float | None:
        """Share of training time in which the devices waited for a batch; None at first."""
        seconds = self.seconds + self.start_waited
        return (self.waited + self.start_waited) / seconds if self.seconds else None


@dataclasses.dataclass
class _LastAndBest(PreservationPolicy):
    """Keeps the newest checkpoint and the best one.

    Each checkpoint's ``Progress`` records which one is the best, whatever else a version writes.

    Attributes:
      best_step: Step of the best checkpoint, None before the first evaluation.
    """

    best_step: int | None = None

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Returns for each checkpoint, in ascending order of step, whether to keep it."""
        del context
        last = len(checkpoints) - 1
        return [
            number == last or checkpoint.step == self.best_step
            for number, checkpoint in enumerate(checkpoints)
        ]


class Checkpoints:
    """The checkpoints of a workdir: written asynchronously, each complete or absent.

    Keeps the last one, for resuming, and the one with the best validation score.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        self._workdir = workdir
        self._kept = _LastAndBest()
        trees = _array_trees()
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._kept, enable_async_checkpointing=True
            ),
            handler_registry=ocp.handlers.create_default_handler_registry(
                weights=trees, rest=trees
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        early = kind is not None and not issubclass(kind, PreemptedError)
        if early and jax.process_count() > 1:
            return  # The others may be gone or busy, and waiting for them would never end.
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def last_step(self) -> int | None:
        """Step of the newest checkpoint; None if there are no checkpoints."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress) -> None:
        """Saves state and progress under the state's step; deletes all others but the best."""
        self._kept.best_step = progress.best_step
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                weights=ocp.args.PyTreeSave(state.weights),
                rest=ocp.args.PyTreeSave(_without_weights(state)),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
                layout=ocp.args.JsonSave(_layout(state)),
            ),
            force=True,
        )

    def progress(self, step: int) -> Progress:
        """Reads the loop's position from the checkpoint of ``step``."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        )
        return Progress(**restored["progress"])

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Restores the state of ``step``, with shapes, dtypes, shardings and scratch of ``like``.

        Restripes the rows of the table if ``like`` has another number of shards.
        """
        weights = self.restore_weights(step, like.weights)
        rest = self._restored(step, "rest", _without_weights(like), _stripes(like.weights))
        return like.replace(**{**rest, "scratch": like.scratch}).with_weights(weights)  # pyright: ignore[reportAttributeAccessIssue]

    def restore_weights(self, step: int, like: Weights) -> Weights:
        """Restores only the weights of ``step``, laid out like ``like``.

        Raises:
          UserError: the checkpoint of that step no longer exists.
        """
        if step not in self._manager.all_steps():
            raise UserError(
                f"workdir {self._workdir}: the checkpoint of step {step}, which had the best "
                "weights, is gone; train anew in another workdir"
            )
        return self._restored(step, "weights", like, _stripes(like))

    def restore_frozen(
        self, step: int, names: Sequence[str], like: Weights
    ) -> dict[str, jax.Array]:
        """Restores the marks of frozen rows: bool[V] by table array, laid out like ``like``."""

        def rows(array):
            return jax.ShapeDtypeStruct(array.shape[:1], bool, sharding=array.sharding)

        table = like.params["table"]
        wanted = {"frozen": {name: rows(table[name]) for name in names}}
        found = self._restored(step, "rest", wanted, _stripes(like), partial=True)
        return found["frozen"]

    def _restored(
        self, step: int, item: str, like: Any, stripes: int, *, partial: bool = False
    ) -> Any:
        layout = self._manager.restore(
            step, args=ocp.args.Composite(layout=ocp.args.JsonRestore())
        )["layout"]
        there = layout["stripes"]
        if there == stripes:
            return self._read(step, item, like, partial=partial)
        lengths = layout["rows"]

        def stored(path, leaf):
            """The shape of a saved leaf, padded so that it splits evenly over these devices."""
            if not is_table_rows(array_path(path)):
                return leaf
            length = -(-lengths[array_path(path)] // stripes) * stripes
            shape = (length, *leaf.shape[1:])
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=leaf.sharding)

        def laid_out(path, leaf, found):
            if not is_table_rows(array_path(path)):
                return found
            found = found[: lengths[array_path(path)]]
            return jax.device_put(restripe(found, there, stripes, leaf.shape[0]), leaf.sharding)

        filled = jax.tree.map_with_path(stored, like)
        found = self._read(step, item, filled, strict=False, partial=partial)
        return jax.tree.map_with_path(laid_out, like, found)

    def _read(
        self, step: int, item: str, like: Any, *, strict: bool = True, partial: bool = False
    ) -> Any:
        """Reads an item; with ``partial``, only the arrays that ``like`` has."""
        how = jax.tree.map(
            lambda leaf: ocp.ArrayRestoreArgs(
                dtype=leaf.dtype, sharding=leaf.sharding, global_shape=leaf.shape, strict=strict
            ),
            like,
        )
        restore = ocp.args.PyTreeRestore(like, restore_args=how, partial_restore=partial)
        return self._manager.restore(step, args=ocp.args.Composite(**{item: restore}))[item]


def _array_trees() -> ocp.PyTreeCheckpointHandler:
    """Returns what writes and reads trees of arrays."""
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_MIN_PART_BYTES)
    return ocp.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    )


def restore_best(workdir: str | os.PathLike[str], like: Weights) -> Weights:
    """Restores the best weights of the run in ``workdir``, laid out like ``like``.

    Raises:
      UserError: the run has not been evaluated yet, or its best checkpoint is gone.
    """
    with Checkpoints(workdir) as checkpoints:
        last = checkpoints.last_step
        best = None if last is None else checkpoints.progress(last).best_step
        if best is None:
            raise UserError(f"workdir {workdir} holds no evaluated checkpoint yet; train it first")
        return checkpoints.restore_weights(best, like=like)


def frozen_arrays(workdir: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the table's arrays with frozen rows in a run; empty before its first checkpoint.

    Reads a file of the newest checkpoint, so the other processes of a job need not take part.
    """
    folder = pathlib.Path(workdir) / "checkpoints"
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not steps:
        return ()
    layout = json.loads((folder / str(max(steps)) / "layout" / "metadata").read_text())
    return tuple(name.removeprefix(_FROZEN) for name in layout["rows"] if name.startswith(_FROZEN))


def restore_frozen(workdir: str | os.PathLike[str], like: Weights) -> dict[str, jax.Array]:
    """Restores the marks of a run's frozen table rows: bool[V] by table array.

    Args:
      workdir: Folder of the run.
      like: Layout of its weights, which the marks follow; the number of devices may differ from
        that of the run.
    """
    names = frozen_arrays(workdir)
    with Checkpoints(workdir) as checkpoints:
        last = checkpoints.last_step
        if last is None or not names:
            return {}
        return checkpoints.restore_frozen(last, names, like)


def _without_weights(state: TrainState) -> dict[str, Any]:
    """The part of a state that is saved beside the weights.

    Scoring reads only the weights, and the content of scratch has no meaning. The marks of frozen
    rows were added later than the rest, so they are saved only if there are any.
    """
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    rest.update(params=(), batch_stats=(), scratch=())
    return rest if state.frozen else {key: rest[key] for key in rest if key != "frozen"}


def _layout(state: TrainState) -> dict[str, Any]:
    """Layout of the table: its stripes, and the length of each array over the table's rows."""
    arrays = jax.tree.leaves_with_path((state.weights, _without_weights(state)))
    named = {array_path(path[1:]): array for path, array in arrays}
    rows = {name: len(array) for name, array in named.items() if is_table_rows(name)}
    return {"stripes": _stripes(state.weights), "rows": rows}


def _stripes(weights: Weights) -> int:
    """Number of shards over which the rows of the table are striped."""
    return stripes_of(next(iter(weights.params["table"].values())))
