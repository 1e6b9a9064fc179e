"""Vectors made elsewhere as the first ones of a column's values, tuned or frozen."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int64

from deepfm_jax.distributed import hosts
from deepfm_jax.embedding.row_writes import write_rows
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.encoding.value_vectors import ValueVectors, field_of_values, read_value_vectors
from deepfm_jax.errors import UserError
from deepfm_jax.models import Model
from deepfm_jax.training.fresh_run import FreshRun
from deepfm_jax.training.optimizer import Optimizer
from deepfm_jax.training.settings import PretrainedVectors
from deepfm_jax.training.state import TrainState, Weights, started_from


class FirstVectors(NamedTuple):
    """What some rows of a table start from.

    Attributes:
      rows: Of the table, each once.
      vectors: As long as the table's.
      frozen: Whether training leaves them as they are.
      told: How they came about, a line for people.
      read: A digest of what was read for them; empty where one process alone did.
    """

    rows: Int64[np.ndarray, "rows"]
    vectors: Float32[np.ndarray, "rows dim"]
    frozen: bool
    told: str
    read: str = ""


class VectorsSource:
    """Vectors made elsewhere, read from files when the source is made."""

    def __init__(self, run: FreshRun):
        """Reads the files.

        Raises:
          UserError: see ``read_first_vectors``.
        """
        self._run = run
        settings = run.experiment.vectors
        self._first = read_first_vectors(settings, run.network.model, run.encoder)
        self.digest = digest(self._first)

    def start(self, state: TrainState) -> TrainState:
        """The state with the vectors in their rows."""
        run = self._run
        return with_first_vectors(state, run.optimizer, self._first, run.placement.mesh)


def read_first_vectors(
    settings: Mapping[str, PretrainedVectors], model: Model, encoder: Encoder
) -> tuple[FirstVectors, ...]:
    """The vectors of all columns that have some, as long and as large as the model's.

    Args:
      settings: By column.
      model: Whose table they are for.
      encoder: Of its rows.

    Raises:
      UserError: a model without vectors; two columns of one vocabulary; vectors that are too short,
        or longer and fewer than the model's numbers, or all the same, or 0 throughout; see
        ``encoding.value_vectors.read_value_vectors``.
    """
    if not settings:
        return ()
    if not model.layout.dim:
        raise UserError(
            f"pretrained_vectors: model {type(model).__name__} has no vectors; leave them out"
        )
    columns: dict[int, str] = {}
    for column in settings:
        field = _naming_column(column, field_of_values, encoder, column)
        if field in columns:
            raise UserError(
                f"pretrained_vectors: {columns[field]!r} and {column!r} share a vocabulary, and so "
                "their vectors; name one of them"
            )
        columns[field] = column
    return tuple(
        _naming_column(column, _read, settings[column], model, encoder, column)
        for column in settings
    )


def _naming_column(column: str, function, *args) -> Any:
    try:
        return function(*args)
    except UserError as error:
        raise UserError(f"pretrained_vectors.{column}: {error}") from None


def _read(settings: PretrainedVectors, model: Any, encoder: Encoder, column: str) -> FirstVectors:
    found = read_value_vectors(settings.file, encoder, column)
    array = model.layout.vectors_of(found.field)
    if array != "embedding":
        raise UserError(
            "the model has no vectors of the common length D for this column; leave it out"
        )
    length = found.vectors.shape[1]
    read = _digest(found.ids, found.vectors) if jax.process_count() > 1 else ""
    vectors, kept = reduced(found.vectors, model.embed_dim)
    vectors, factor = scaled(vectors, settings.scale, model.init_std)
    # A model that has two vectors of each value side by side gets the same one twice.
    vectors = np.tile(vectors, (1, model.layout.dim // model.embed_dim))
    told = [_coverage(found, settings, column)]
    if kept is not None:
        told.append(
            f"{length} numbers reduced to {model.embed_dim}, which keep {kept:.1%} of the variance"
        )
    if factor != 1:
        told.append(f"multiplied by {factor:.4g}")
    frozen = not settings.tuned
    if frozen:
        told.append("they stay as they are")
    rows = found.ids + model.layout.space_of(array).first_row(found.field)
    return FirstVectors(rows, vectors, frozen, "; ".join(told), read)


def _coverage(found: ValueVectors, settings: PretrainedVectors, column: str) -> str:
    told = f"{len(found.ids):,} of {found.possible:,} values of {column} have a vector"
    if found.unknown:
        told += f"; {found.unknown:,} values of {settings.file} are not in the vocabulary"
    if found.shared:
        told += f"; {found.shared:,} share their bucket, which has the mean of their vectors"
    return told


def reduced(
    vectors: Float32[np.ndarray, "rows length"], dim: int
) -> tuple[Float32[np.ndarray, "rows dim"], float | None]:
    """Vectors of ``dim`` numbers: their first principal components, where they have more.

    Components are of the vectors less their mean, a constant that a model's other weights make up
    for. They keep their variances, so that distances are those of the longer vectors, as far as
    ``dim`` numbers can give them. The same vectors in the same order give the same result on one
    kind of processor; another may round otherwise.

    Args:
      vectors: Written over where they are reduced, for they may be most of what memory holds.
      dim: Numbers of the model's vectors.

    Returns:
      The vectors, and the share of their variance that is kept; None where they are as they were.

    Raises:
      UserError: fewer numbers than ``dim``, or fewer vectors than components are asked for, or
        vectors that are all the same.
    """
    from sklearn.decomposition import PCA

    count, length = vectors.shape
    if length < dim:
        raise UserError(
            f"the vectors have {length} numbers, and the model's {dim}; set "
            f"model.embed_dim={length}, or less"
        )
    if length == dim:
        return vectors, None
    if count < dim:
        raise UserError(
            f"only {count} values have a vector, too few to reduce them from {length} numbers to "
            f"the model's {dim}; give vectors of {dim} numbers"
        )
    exponent = _divide(vectors)
    # Centred in float64 before: the solver takes the mean from sums of squares.
    vectors -= vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not vectors.any():
        raise UserError(f"all {count} vectors are the same, and say nothing of the values")
    exponent += _divide(vectors)
    pca = PCA(dim, svd_solver="covariance_eigh")
    components = pca.fit_transform(vectors).astype(np.float32)
    return np.ldexp(components, exponent), float(pca.explained_variance_ratio_.sum())


def _divide(vectors: Float32[np.ndarray, "rows length"]) -> int:
    """Divides vectors, in place, by the power of two just above all of their numbers.

    Squares then are neither infinite nor 0, and nothing is rounded.

    Returns:
      The exponent of that power.
    """
    exponent = math.frexp(max(float(vectors.max()), -float(vectors.min())))[1]
    np.ldexp(vectors, -exponent, out=vectors)
    return exponent


def scaled(
    vectors: Float32[np.ndarray, "rows dim"], scale: str, init_std: float
) -> tuple[Float32[np.ndarray, "rows dim"], float]:
    """Vectors times one factor, which it returns too; see ``settings.PretrainedVectors``.

    Raises:
      UserError: all numbers are 0.
    """
    size = math.sqrt(np.mean(np.square(vectors, dtype=np.float64)))
    if size == 0:
        raise UserError("all numbers of the vectors are 0")
    target = {"as_is": size, "init_std": init_std, "unit_length": vectors.shape[1] ** -0.5}[scale]
    factor = target / size
    # A 0 without its sign: rows that never move are compared bit by bit.
    return (vectors * np.float32(factor) + np.float32(0)), factor


def digest(first: Sequence[FirstVectors]) -> str:
    """Text that changes with any row or number that was read; empty where one process alone did."""
    return " ".join(each.read for each in first)


def _digest(*arrays: np.ndarray) -> str:
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def with_first_vectors(
    state: TrainState, optimizer: Optimizer, first: Sequence[FirstVectors], mesh: Mesh
) -> TrainState:
    """A state before its first step, some of whose rows have the vectors given.

    First-order weights and all other rows keep what the initialiser gave them. Of several processes
    the first one's vectors are taken: each has rounded its own.

    Args:
      state: A fresh one.
      optimizer: What moves it.
      first: See ``read_first_vectors``; read from the same in every process (see ``digest``).
      mesh: Devices.
    """
    weights, striped = state.weights, optimizer.rows is not None
    table, frozen = dict(weights.params["table"]), dict(state.frozen)
    for each in first:
        if each.frozen:
            marks = np.ones(len(each.rows), bool)
            frozen["embedding"] = write_rows(
                frozen["embedding"], each.rows, marks, mesh, striped=striped
            )
        vectors = hosts.from_primary(each.vectors)
        table["embedding"] = write_rows(
            table["embedding"], each.rows, vectors, mesh, striped=striped
        )
        if hosts.is_primary():
            print(f"pretrained vectors: {each.told}")
    params = {**weights.params, "table": table}
    state = started_from(state, optimizer, Weights(params, weights.batch_stats))
    return state.replace(frozen=frozen)  # pyright: ignore[reportAttributeAccessIssue]
