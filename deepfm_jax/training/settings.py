"""Settings of a run: data set, model, optimizer, loop and seed, as frozen data."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from deepfm_jax.annotations import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from deepfm_jax.dataclass_data import check_values, from_data, to_data
from deepfm_jax.distributed.partitioning import DEFAULT_PARTITIONING, Partitioning
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.heads import build_head
from deepfm_jax.metrics.calibration import check_negative_rate
from deepfm_jax.models import Model, build_model
from deepfm_jax.training.network import Network
from deepfm_jax.training.optimizer_settings import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The prepared data set of a run.

    Attributes:
      name: Data set, as in ``datasets.BUILDERS``.
      folder: Folder of prepared data sets, ``prepare``'s ``--out``.
      options: ``BuildOptions`` for a data set that the launcher prepares itself (``synthetic``).
      labels: Labels to predict, each a task of the head; empty for the data set's first label. A
        text separates them by commas.
      negative_rate: Share w of the training examples with label 0 that each epoch trains on, drawn
        anew in each (see ``input.sampling``). Scores are corrected for it wherever the model is
        measured or used (see ``calibration``); the training loss is that of the sample.
    """

    name: str
    folder: str = "data"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] | list[str] | str = ()
    negative_rate: float = 1.0

    def __post_init__(self):
        labels = self.labels
        if isinstance(labels, str):
            labels = [name.strip() for name in labels.split(",") if name.strip()]
        object.__setattr__(self, "labels", tuple(labels))
        if len(self.labels) > 1 and self.negative_rate < 1:
            raise UserError(
                f"data.negative_rate={self.negative_rate} samples the negatives of one label, but "
                f"data.labels names {len(self.labels)}; set it to 1"
            )


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """Length of training, frequency of evaluations and checkpoints, and choice of weights.

    Attributes:
      batch_size: B, over all devices.
      epochs: Largest number of passes over the training examples.
      monitor: Validation metric that selects the best weights: ``auc`` or ``logloss``.
      patience: Consecutive evaluations without improvement that end the run; 0 never ends it.
      min_improvement: Smallest change of the metric that counts as an improvement.
      evaluations_per_epoch: Evaluations on ``valid`` in each epoch, evenly spaced.
      checkpoint_steps: Steps between checkpoints; evaluations always write one.
      log_steps: Steps between points of the training loss.
      eval_batch_size: Examples per batch when scoring.
      streams: Number of parts in which a pass over the training examples is read, each shuffled
        independently (see ``input.shuffle``); 0 for one per host of the first start. The same
        number gives the same batches on any number of hosts.
    """

    batch_size: PositiveInt = 4096
    epochs: PositiveInt = 10
    monitor: Literal["auc", "logloss"] = "auc"
    patience: NonNegativeInt = 2
    min_improvement: NonNegativeFloat = 1e-6
    evaluations_per_epoch: PositiveInt = 1
    checkpoint_steps: PositiveInt = 500
    log_steps: PositiveInt = 10
    eval_batch_size: PositiveInt = 8192
    streams: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A pretraining stage: trains another model, from whose best weights the run's model starts.

    Attributes:
      model: ``name`` and hyperparameters for ``models.build_model``. Parameters that both models
        share by name and shape are copied; tables of different shapes are an error.
      optimizer: Settings of the stage's optimizer.
      loop: Settings of the stage's loop.
    """

    model: Mapping[str, Any]
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    loop: LoopSettings = LoopSettings()


@dataclasses.dataclass(frozen=True)
class PretrainedVectors:
    """Pretrained vectors, from which the rows of a column's values start.

    The files are Parquet, with the column's values under its name or ``value``, and lists of
    numbers under ``vector``. Rows of values that are not in the files start at random, and so does
    id 0. Vectors longer than ``model.embed_dim`` are reduced to it by PCA, fitted on the values
    that have an id; shorter ones are an error. First-order weights are not affected.

    An L2 penalty (``optimizer.l2.table``) pulls vectors towards 0, not towards their first values.

    Attributes:
      file: A file, or a pattern for several, on a disk or behind a URL.
      scale: Factor for all vectors. ``unit_length`` makes their mean square length 1, whatever
        their source: an inner product with another such vector then moves a logit by about 1, and
        none dominates the rest. ``init_std`` makes the mean square of their numbers that of the
        model's other initial vectors; these are small so as not to interfere, and a few steps then
        undo the information in the vectors. ``as_is`` does not scale.
      tuned: Whether training moves the vectors. If not, the vectors in the file stay fixed, bit
        for bit; all other vectors and the first-order weights are learned.
    """

    file: str
    scale: Literal["unit_length", "init_std", "as_is"] = "unit_length"
    tuned: bool = True


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that determines a run's result.

    Attributes:
      data: Data set.
      model: ``name`` and hyperparameters for ``models.build_model``.
      head: ``name`` and hyperparameters for ``heads.build_head``; empty for ``one_task`` or, with
        several labels, ``shared_bottom``.
      optimizer: Optimizer.
      loop: Training loop.
      seed: Seed of initialization, shuffling and dropout.
      pretraining: An earlier stage on the same data and seed; None for none.
      warm_start: Workdir of an earlier run whose weights are the starting point; None for none.
        Every id of that run's encoder must mean the same in this data set's (``prepare``'s
        ``extend_from``). Vectors that are frozen in that run stay frozen in this one.
      pretrained_vectors: By column, the vectors from which its values start; excludes
        ``pretraining`` and ``warm_start``. In a config, a text names the file.
      partitioning: Layout of the run on the devices. It affects the result only by rounding.
    """

    data: DataSettings
    model: Mapping[str, Any]
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    loop: LoopSettings = LoopSettings()
    seed: Seed = 2021
    head: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: Pretraining | None = None
    warm_start: str | None = None
    pretrained_vectors: Mapping[str, PretrainedVectors | str] = dataclasses.field(
        default_factory=dict
    )
    partitioning: Partitioning = DEFAULT_PARTITIONING

    def __post_init__(self):
        object.__setattr__(self, "pretrained_vectors", self.vectors)
        check_negative_rate(self.data.negative_rate)
        check_values(self)
        _check_together(self)
        if self.pretraining is not None:
            _check_together(self.pretraining, "pretraining.")
        keys = ("pretraining", "warm_start", "pretrained_vectors")
        sources = [key for key in keys if getattr(self, key)]
        if len(sources) > 1:
            raise UserError(
                f"{sources[0]} and {sources[1]} both set the first weights; use only one"
            )

    @property
    def vectors(self) -> dict[str, PretrainedVectors]:
        """``pretrained_vectors`` with each text converted to settings."""
        return {
            column: PretrainedVectors(each) if isinstance(each, str) else each
            for column, each in self.pretrained_vectors.items()
        }

    @property
    def first_stage(self) -> "Experiment | None":
        """The pretraining stage as a separate run; None without ``pretraining``."""
        stage = self.pretraining
        if stage is None:
            return None
        return Experiment(
            self.data,
            stage.model,
            stage.optimizer,
            stage.loop,
            self.seed,
            self.head,
            partitioning=self.partitioning,
        )

    @property
    def has_frozen_vectors(self) -> bool:
        """Whether some rows of the table have pretrained vectors that training does not move."""
        return not all(vectors.tuned for vectors in self.vectors.values())

    def build_model(self, encoder: Encoder) -> Model:
        """Builds the model for the fields of an encoder.

        Raises:
          UserError: see ``models.build_model``.
        """
        hyperparameters = {key: value for key, value in self.model.items() if key != "name"}
        return build_model(self.model["name"], encoder.features, hyperparameters)

    def build_network(self, encoder: Encoder) -> Network:
        """Builds the model under the head for the labels to predict.

        Raises:
          UserError: see ``models.build_model`` and ``heads.build_head``.
        """
        hyperparameters = {key: value for key, value in self.head.items() if key != "name"}
        tasks = [label.name for label in encoder.schema.labels_named(self.data.labels)]
        head = build_head(self.head.get("name", ""), tasks, hyperparameters)
        return Network(self.build_model(encoder), head)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Experiment":
        """Reads a nested mapping, such as a config file's, strictly.

        Raises:
          UserError: a key is unknown or missing, or a value is out of range.
        """
        return from_data(cls, config, "config")

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON; ``from_mapping`` reads it back."""
        return to_data(self)


def _check_together(stage: Experiment | Pretraining, prefix: str = "") -> None:
    """Checks that the settings of a run, or of its pretraining stage, fit together.

    Raises:
      UserError: the model is missing, or two settings contradict each other.
    """
    if "name" not in stage.model:
        raise UserError(f"{prefix}model.name is missing; name one of deepfm_jax.MODELS")
    streams, batch_size = stage.loop.streams, stage.loop.batch_size
    if streams and batch_size % streams:
        raise UserError(
            f"{prefix}loop.streams={streams} must split {prefix}loop.batch_size={batch_size} evenly"
        )
    waits, patience = stage.optimizer.plateau_patience, stage.loop.patience
    if stage.optimizer.schedule == "plateau" and 0 < patience <= waits:
        raise UserError(
            f"{prefix}optimizer.plateau_patience={waits} must be below {prefix}loop.patience="
            f"{patience}, or the run ends before the first cut"
        )
