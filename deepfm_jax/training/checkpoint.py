"""Checkpoints: the best and the last state of a run, with the position of its loop."""

import dataclasses
import os
import pathlib
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from deepfm_jax.errors import UserError
from deepfm_jax.training.state import TrainState, Weights


@dataclasses.dataclass
class Progress:
    """Where the loop stands: with the state, all that a resumed run needs.

    Attributes:
      epoch: Epoch under way, from 0.
      batch: Batches of that epoch already trained on.
      best_score: Best validation score so far (higher is better), None before the first.
      best_step: Its step.
      bad_evaluations: Evaluations in a row without improvement.
      finished: Whether the run came to its end.
      seconds: Time spent in training steps, over all starts.
      examples: Rows trained on in that time.
      fingerprint: Of the data set.
      train_losses: (step, loss) points.
      evaluations: Validation metrics with their ``step``.
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
    train_losses: list[list[int | float]] = dataclasses.field(default_factory=list)
    evaluations: list[dict[str, int | float]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """The checkpoints of a workdir: written asynchronously, each complete or absent.

    The last one is kept, for resuming, and the one with the best validation score.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        policies = [
            LatestN(n=1),
            BestN(
                get_metric_fn=lambda metrics: metrics["score"],
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        self._manager = ocp.CheckpointManager(
            pathlib.Path(workdir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def last_step(self) -> int | None:
        """Step of the newest checkpoint, None when there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, score: float | None = None) -> None:
        """Saves state and progress under the state's step; ``score`` where it is the best yet."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(state.weights),
                rest=ocp.args.StandardSave(_without_weights(state)),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
            metrics=None if score is None else {"score": score},
            force=True,
        )

    def progress(self, step: int) -> Progress:
        """The loop's position in the checkpoint of ``step``."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        )
        return Progress(**restored["progress"])

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of ``step``, with the shapes, dtypes, shardings and scratch of ``like``."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(like.weights),
                rest=ocp.args.StandardRestore(_without_weights(like)),
            ),
        )
        return restored["rest"].replace(scratch=like.scratch).with_weights(restored["weights"])

    def restore_weights(self, step: int, like: Weights) -> Weights:
        """The weights of ``step`` alone, laid out as ``like``."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(weights=ocp.args.StandardRestore(like))
        )
        return restored["weights"]


def restore_best(workdir: str | os.PathLike[str], like: Weights) -> Weights:
    """The best weights of the run in ``workdir``, laid out as ``like``.

    Raises:
      UserError: a run that has not been evaluated once yet.
    """
    with Checkpoints(workdir) as checkpoints:
        last = checkpoints.last_step
        best = None if last is None else checkpoints.progress(last).best_step
        if best is None:
            raise UserError(f"workdir {workdir} holds no evaluated checkpoint yet; train it first")
        return checkpoints.restore_weights(best, like=like)


def _without_weights(state: TrainState) -> Any:
    """What is saved beside the weights: scoring reads those alone, and scratch means nothing."""
    return state.replace(params=(), batch_stats=(), scratch=())  # pyright: ignore[reportAttributeAccessIssue]
