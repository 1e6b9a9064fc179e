"""What one run is: data set, model, optimizer, loop and seed, as frozen data."""

import dataclasses
import difflib
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import flax.linen as nn

from deepfm_jax.distributed.partitioning import DEFAULT_PARTITIONING, Partitioning
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.metrics.calibration import check_negative_rate
from deepfm_jax.models import build_model
from deepfm_jax.training.setting_checks import check_choice, check_seed, check_stage

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which prepared data set.

    Attributes:
      name: Data set, as in ``datasets.BUILDERS``.
      folder: Folder of prepared data sets, ``prepare``'s ``--out``.
      options: ``BuildOptions`` for a data set that is prepared on the way (``synthetic``).
      label: Of several labels the one to predict; empty for the first.
      negative_rate: Share w of the training rows with label 0 that each epoch trains on, others in
        each (see ``input.sampling``). Scores are corrected for it wherever the model is measured or
        used (see ``calibration``); the training loss is that of the sample.
    """

    name: str
    folder: str = "data"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    negative_rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How parameters move.

    Attributes:
      name: ``adam``, ``adagrad`` or ``sgd``.
      table: How the embedding table moves. ``dense``: by ``name``, every row at every step, as
        optax does it. ``sparse``: by ``row_optimizer``, only the rows of the batch. ``auto``:
        sparse where that is faster, that is where the table has many more rows than a batch
        reads (see ``training.optimizer.table_path``).
      row_optimizer: Of the table on the sparse path: ``sgd``, ``adagrad``, ``rowwise_adagrad``,
        ``adam`` (lazy) or ``ftrl``; empty takes ``name``.
      first_order_optimizer: The same for the first-order weights; empty takes
        ``row_optimizer``.
      row_learning_rate: Peak learning rate of the sparse path's rows; 0 takes ``learning_rate``.
      first_order_learning_rate: The same for the first-order weights; 0 takes
        ``row_learning_rate``.
      learning_rate: Peak learning rate.
      schedule: ``constant``; ``warmup_cosine``: linear over ``warmup_steps``, then a cosine to 0
        at the end of ``loop.epochs``; ``plateau``: multiplied by ``plateau_factor`` after
        evaluations that do not improve, not below ``plateau_floor``.
      plateau_patience: Evaluations in a row without improvement that pass before such a cut, and
        before the next; 0 cuts at each. A metric that jumps about from one to the next cuts the
        rate too early by chance; then let one pass, and let ``loop.patience`` be larger.
      clip_norm: Largest global norm of the gradient, L2 terms included; 0 for no clipping.
      embedding_l2: lambda of (lambda / 2) ||W||^2 over the table, first-order weights included.
        It is part of the gradient, not decoupled weight decay. On the dense path every row
        decays at every step; on the sparse path a row decays only at the steps that touch it,
        so rare rows decay less and the best lambda is larger. For ``ftrl`` it is lambda_2.
      embedding_l1: lambda of lambda |W|_1 over the same weights, likewise; ``ftrl``'s lambda_1.
      first_order_l2: In place of ``embedding_l2`` for the first-order weights; None takes that.
      first_order_l1: In place of ``embedding_l1`` for the first-order weights; None takes that.
      dense_l2: lambda for the kernels of all other layers; biases and batch norm are left alone.
    """

    name: str = "adam"
    table: str = "auto"
    row_optimizer: str = ""
    first_order_optimizer: str = ""
    row_learning_rate: float = 0.0
    first_order_learning_rate: float = 0.0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    plateau_factor: float = 0.1
    plateau_floor: float = 1e-6
    plateau_patience: int = 0
    clip_norm: float = 0.0
    embedding_l2: float = 0.0
    embedding_l1: float = 0.0
    first_order_l2: float | None = None
    first_order_l1: float | None = None
    dense_l2: float = 0.0


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long, how often, and which weights are kept.

    Attributes:
      batch_size: B, over all devices.
      epochs: Most passes over the training rows.
      monitor: Validation metric that chooses the best weights: ``auc`` or ``logloss``.
      patience: Evaluations in a row without improvement that end the run; 0 never does.
      min_improvement: Smallest change of the metric that counts as an improvement.
      evaluations_per_epoch: Evaluations on ``valid`` in each epoch, evenly spaced.
      checkpoint_steps: Steps between checkpoints; evaluations always write one.
      log_steps: Steps between points of the training loss.
      eval_batch_size: Rows of a batch when scoring.
      streams: Parts in which a pass over the training rows is read, each shuffled by itself (see
        ``input.order``); 0 for one for each host of the first start. The same number gives the same
        batches, on however many hosts.
    """

    batch_size: int = 4096
    epochs: int = 10
    monitor: str = "auc"
    patience: int = 2
    min_improvement: float = 1e-6
    evaluations_per_epoch: int = 1
    checkpoint_steps: int = 500
    log_steps: int = 10
    eval_batch_size: int = 8192
    streams: int = 0


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A first stage: another model is trained, and the run's own starts from its best weights.

    Attributes:
      model: ``name`` and hyperparameters, as ``models.build_model`` takes them. Parameters that
        both models have, by name and shape, are taken over; tables of other shapes are an error.
      optimizer: How its parameters move.
      loop: How long.
    """

    model: Mapping[str, Any]
    optimizer: OptimizerSettings = OptimizerSettings()
    loop: LoopSettings = LoopSettings()


@dataclasses.dataclass(frozen=True)
class PretrainedVectors:
    """Vectors made elsewhere for the values of a column, which start from them.

    Parquet, with the values of the column under its name or ``value``, and lists of numbers under
    ``vector``. Rows of values that the files do not have start at random, and so does id 0. Vectors
    of more numbers than ``model.embed_dim`` are reduced to it by PCA, fitted on the values that
    have an id; shorter ones are an error. First-order weights are left alone.

    An L2 (``optimizer.embedding_l2``) draws vectors to 0, and not to what they were.

    Attributes:
      file: A file, or a pattern of several, on a disk or behind a URL.
      scale: What all vectors are multiplied by. ``unit_length``: so that their mean square length
        is 1, whatever made them: an inner product with another then moves a logit by about 1, and
        none drowns the rest. ``init_std``: so that the mean square of their numbers is that of the
        model's other first vectors; these are small to be out of the way, and a few steps then
        undo what the vectors say. ``as_is``: by 1.
      tuned: Whether training moves the vectors. If not, those that the file has stay as they are,
        bit for bit, and all others are learnt; first-order weights are too.
    """

    file: str
    scale: str = "unit_length"
    tuned: bool = True


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's result.

    Attributes:
      data: The rows.
      model: ``name`` and hyperparameters, as ``models.build_model`` takes them.
      optimizer: How parameters move.
      loop: How long.
      seed: Of initialisation, shuffle and dropout.
      pretraining: A stage before, on the same rows and seed; None for none.
      warm_start: Workdir of an earlier run whose weights it starts from; None for none. Every id of
        that run's encoder must mean the same in this data set's (``prepare``'s ``extend_from``).
        Vectors that are frozen in that run are so in this one.
      pretrained_vectors: By column, vectors that its values start from, without a stage before and
        without ``warm_start``. In a config a text is the file.
      partitioning: How it lies on the devices. It decides nothing of the result but the rounding.
    """

    data: DataSettings
    model: Mapping[str, Any]
    optimizer: OptimizerSettings = OptimizerSettings()
    loop: LoopSettings = LoopSettings()
    seed: int = 2021
    pretraining: Pretraining | None = None
    warm_start: str | None = None
    pretrained_vectors: Mapping[str, PretrainedVectors] = dataclasses.field(default_factory=dict)
    partitioning: Partitioning = DEFAULT_PARTITIONING

    def __post_init__(self):
        check_negative_rate(self.data.negative_rate)
        check_seed(self.seed)
        check_stage(self)
        if self.pretraining is not None:
            check_stage(self.pretraining, "pretraining.")
        if self.warm_start is not None and self.pretraining is not None:
            raise UserError("pretraining and warm_start both give the first weights; take one")
        for column, vectors in self.pretrained_vectors.items():
            key = f"pretrained_vectors.{column}.scale"
            check_choice(key, vectors.scale, ("unit_length", "init_std", "as_is"))
        for key in ("pretraining", "warm_start"):
            if self.pretrained_vectors and getattr(self, key) is not None:
                raise UserError(
                    f"pretrained_vectors and {key} both give the first weights; take one"
                )

    @property
    def first_stage(self) -> "Experiment | None":
        """The stage before as a run of its own; None without ``pretraining``."""
        stage = self.pretraining
        if stage is None:
            return None
        return Experiment(
            self.data,
            stage.model,
            stage.optimizer,
            stage.loop,
            self.seed,
            partitioning=self.partitioning,
        )

    @property
    def has_frozen_vectors(self) -> bool:
        """Whether some rows of the table have vectors of a file that training does not move."""
        return not all(vectors.tuned for vectors in self.pretrained_vectors.values())

    def build_model(self, encoder: Encoder) -> nn.Module:
        """The model for the rows that an encoder encodes.

        Raises:
          UserError: see ``models.build_model``.
        """
        hyperparameters = {key: value for key, value in self.model.items() if key != "name"}
        crosses = len(encoder.schema.crosses)
        return build_model(self.model["name"], encoder.field_dims, hyperparameters, crosses)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Experiment":
        """Reads a nested mapping (a config file's) strictly.

        Raises:
          UserError: a key that does not exist, a missing one, or a value out of its range.
        """
        config = dict(config)
        config["pretrained_vectors"] = _vectors_by_column(config.get("pretrained_vectors") or {})
        for section in ("data", "model"):
            if section not in config:
                raise UserError(f"config has no section {section!r}")
        nested = {
            "data": DataSettings,
            "optimizer": OptimizerSettings,
            "loop": LoopSettings,
            "pretraining": Pretraining,
            "partitioning": Partitioning,
        }

        def read(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
            return {
                key: from_mapping(nested[key], read(value, f"{prefix}{key}."), f"{prefix}{key}.")
                if key in nested and value is not None
                else value
                for key, value in values.items()
            }

        return from_mapping(cls, read(config, ""), "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_mapping`` reads it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def from_mapping(kind: type[_T], values: Mapping[str, Any], prefix: str) -> _T:
    """An instance of a dataclass from a mapping.

    Raises:
      UserError: a key that the dataclass does not have, named with its prefix.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"keys are {known}"
            raise UserError(f"config key {prefix}{key} does not exist; {hint}")
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        defaults = (field.default, field.default_factory)
        if field.name not in values and defaults == (dataclasses.MISSING,) * 2:
            raise UserError(f"config key {prefix}{field.name} is missing")
        if field.name in values and not _fits(values[field.name], field.type):
            raise UserError(
                f"config key {prefix}{field.name}={values[field.name]!r} must be of type "
                f"{_told(field.type)}"
            )
    return kind(**values)


def _vectors_by_column(values: Any) -> dict[str, PretrainedVectors]:
    prefix = "pretrained_vectors"
    if not isinstance(values, Mapping):
        raise UserError(f"config key {prefix}={values!r} must name files by column")

    def read(column: str, value: Any) -> PretrainedVectors:
        if isinstance(value, str):
            return PretrainedVectors(value)
        if not isinstance(value, Mapping):
            raise UserError(f"config key {prefix}.{column}={value!r} must be a file or settings")
        return from_mapping(PretrainedVectors, value, f"{prefix}.{column}.")

    return {column: read(column, value) for column, value in values.items()}


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    # Of a mapping or a sequence the kind alone; what it is of is checked where it is read.
    kind = get_origin(kind) or kind
    return not isinstance(kind, type) or isinstance(value, kind)


def _told(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
