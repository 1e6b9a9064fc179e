"""Pretrained vectors as the first embeddings of a column's values, tuned or frozen."""

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
    """First vectors of some rows of a table.

    Attributes:
      rows: Distinct rows of the table.
      vectors: Their vectors, of the table's length.
      frozen: Whether training keeps them fixed.
      summary: A line that describes how they were made.
      digest: Digest of the content that was read for them; empty in a job of one process.
    """

    rows: Int64[np.ndarray, "rows"]
    vectors: Float32[np.ndarray, "rows dim"]
    frozen: bool
    summary: str
    digest: str = ""


class VectorsSource:
    """Pretrained vectors, read from files when the source is created."""

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
        """Returns the state with the vectors in their rows."""
        run = self._run
        return with_first_vectors(state, run.optimizer, self._first, run.placement.mesh)


def read_first_vectors(
    settings: Mapping[str, PretrainedVectors], model: Model, encoder: Encoder
) -> tuple[FirstVectors, ...]:
    """Reads the vectors of all columns in ``settings``, reduced and scaled to the model's vectors.

    Args:
      settings: Settings by column.
      model: Model whose table they are for.
      encoder: Encoder of its data set.

    Raises:
      UserError: the model has no vectors; two columns share a vocabulary; the vectors are too
        short, too few to be reduced, all identical, or all 0; see also
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
                f"pretrained_vectors: {columns[field]!r} and {column!r} share a vocabulary and "
                "therefore their vectors; name only one of them"
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
    content = _digest(found.ids, found.vectors) if jax.process_count() > 1 else ""
    vectors, kept = reduced(found.vectors, model.embed_dim)
    vectors, factor = scaled(vectors, settings.scale, model.init_std)
    # A model that keeps two vectors of each value side by side gets the same vector twice.
    vectors = np.tile(vectors, (1, model.layout.dim // model.embed_dim))
    summary = [_coverage(found, settings, column)]
    if kept is not None:
        summary.append(
            f"{length} numbers reduced to {model.embed_dim}, which keep {kept:.1%} of the variance"
        )
    if factor != 1:
        summary.append(f"multiplied by {factor:.4g}")
    frozen = not settings.tuned
    if frozen:
        summary.append("frozen")
    rows = found.ids + model.layout.space_of(array).first_row(found.field)
    return FirstVectors(rows, vectors, frozen, "; ".join(summary), content)


def _coverage(found: ValueVectors, settings: PretrainedVectors, column: str) -> str:
    text = f"{len(found.ids):,} of {found.possible:,} values of {column} have a vector"
    if found.unknown:
        text += f"; {found.unknown:,} values of {settings.file} are not in the vocabulary"
    if found.shared:
        text += f"; {found.shared:,} share a bucket, which gets the mean of their vectors"
    return text


def reduced(
    vectors: Float32[np.ndarray, "rows length"], dim: int
) -> tuple[Float32[np.ndarray, "rows dim"], float | None]:
    """Reduces vectors longer than ``dim`` to their first ``dim`` principal components.

    The vectors are centered first; the model's other weights make up for the constant mean. The
    components are not rescaled, so distances match those of the longer vectors as closely as
    ``dim`` numbers allow. The same vectors in the same order give the same result on one kind of
    processor; another kind may round differently.

    Args:
      vectors: Overwritten if they are reduced, because they may occupy most of the memory.
      dim: Length of the model's vectors.

    Returns:
      The vectors, and the share of the variance that is kept; None if they are unchanged.

    Raises:
      UserError: the vectors are shorter than ``dim``, or there are fewer of them than components,
        or all are identical.
    """
    from sklearn.decomposition import PCA

    count, length = vectors.shape
    if length < dim:
        raise UserError(
            f"the vectors have {length} numbers, but the model's have {dim}; set "
            f"model.embed_dim={length} or less"
        )
    if length == dim:
        return vectors, None
    if count < dim:
        raise UserError(
            f"only {count} values have a vector, too few to reduce them from {length} numbers to "
            f"the model's {dim}; give vectors of {dim} numbers"
        )
    exponent = _divide(vectors)
    # Centered in float64 beforehand, because the solver subtracts the mean from sums of squares.
    vectors -= vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not vectors.any():
        raise UserError(f"all {count} vectors are identical and do not distinguish the values")
    exponent += _divide(vectors)
    pca = PCA(dim, svd_solver="covariance_eigh")
    components = pca.fit_transform(vectors).astype(np.float32)
    return np.ldexp(components, exponent), float(pca.explained_variance_ratio_.sum())


def _divide(vectors: Float32[np.ndarray, "rows length"]) -> int:
    """Divides vectors, in place, by the smallest power of two above all their magnitudes.

    Squares are then neither infinite nor 0, and nothing is rounded.

    Returns:
      The exponent of that power.
    """
    exponent = math.frexp(max(float(vectors.max()), -float(vectors.min())))[1]
    np.ldexp(vectors, -exponent, out=vectors)
    return exponent


def scaled(
    vectors: Float32[np.ndarray, "rows dim"], scale: str, init_std: float
) -> tuple[Float32[np.ndarray, "rows dim"], float]:
    """Scales vectors by one factor (see ``settings.PretrainedVectors``); returns both.

    Raises:
      UserError: all numbers are 0.
    """
    size = math.sqrt(np.mean(np.square(vectors, dtype=np.float64)))
    if size == 0:
        raise UserError("all numbers of the vectors are 0")
    target = {"as_is": size, "init_std": init_std, "unit_length": vectors.shape[1] ** -0.5}[scale]
    factor = target / size
    # Adding 0 turns -0 into +0: frozen rows are compared bit by bit.
    return (vectors * np.float32(factor) + np.float32(0)), factor


def digest(first: Sequence[FirstVectors]) -> str:
    """Text that changes with any row or number that was read; empty in a job of one process."""
    return " ".join(each.digest for each in first)


def _digest(*arrays: np.ndarray) -> str:
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def with_first_vectors(
    state: TrainState, optimizer: Optimizer, first: Sequence[FirstVectors], mesh: Mesh
) -> TrainState:
    """Writes first vectors into the table of a fresh state.

    First-order weights and all other rows keep their initial values. All processes use the primary
    process's vectors, because each process rounds differently.

    Args:
      state: A fresh state.
      optimizer: Its optimizer.
      first: See ``read_first_vectors``; every process must have read the same content (see
        ``digest``).
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
            print(f"pretrained vectors: {each.summary}")
    params = {**weights.params, "table": table}
    state = started_from(state, optimizer, Weights(params, weights.batch_stats))
    return state.replace(frozen=frozen)  # pyright: ignore[reportAttributeAccessIssue]
