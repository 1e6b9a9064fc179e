"""Simulates click logs shaped like Criteo's from a known truth.

The logit of every row is known, so the distance of a trained model from the best possible one can
be measured.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float64

from deepfm_jax.errors import UserError
from deepfm_jax.schema import Categorical, Label, Numeric, Schema, TextFormat

# ln(median) and tail of the counts of I1..I13, and the percentage of missing cells.
_COUNTS = (
    *((0.7, 0.9, 45), (3.0, 1.0, 0), (2.0, 0.8, 21), (1.8, 0.6, 21), (7.5, 0.9, 3)),
    *((4.0, 0.9, 22), (1.5, 1.0, 4), (2.2, 0.6, 0), (4.0, 0.8, 4), (0.3, 0.5, 45)),
    *((1.0, 0.7, 4), (0.2, 0.7, 40), (2.0, 0.6, 21)),
)
# Vocabulary size of C1..C26 and the percentage of missing cells.
_VOCABULARIES = (
    *((1000, 0), (500, 0), (20_000, 3), (8000, 3), (200, 0), (16, 12), (6000, 0), (400, 0)),
    *((4, 0), (10_000, 0), (3000, 0), (20_000, 3), (2000, 0), (26, 0), (4000, 0)),
    *((12_000, 3), (10, 0), (2500, 0), (1500, 44), (4, 44), (15_000, 3), (12, 76), (15, 0)),
    *((5000, 3), (60, 44), (3500, 44)),
)
_NUMERIC = {f"I{i}": spec for i, spec in enumerate(_COUNTS, 1)}
_CATEGORICAL = {f"C{i}": spec for i, spec in enumerate(_VOCABULARIES, 1)}
_OFFSET = {"I2": -3.0}  # I2 is the only count of Criteo that can be negative.

# All pairs inside a group interact. With 4 groups of 4 latent dimensions, an FM of 16 dimensions
# can represent the pairwise truth exactly. The fields are those whose values recur often enough to
# be learned; every group has numeric and categorical fields.
PAIR_GROUPS = (
    ("C1", "C9", "C14", "I3"),
    ("C2", "C17", "C20", "I5"),
    ("C5", "C22", "I1", "I7"),
    ("C6", "C23", "C25", "I11"),
)
PRODUCTS = (
    ("C9", "C17", "C23"),
    ("C6", "C20", "I7"),
    ("C14", "C22", "I5"),
    ("C9", "C20", "I1", "I11"),
)
LATENT_DIM = 4
_FIRST, _LATENT, _SCALAR = 0, slice(1, 1 + LATENT_DIM), 1 + LATENT_DIM  # columns of `effects`
_LARGE, _LARGE_SHARE = 2000, 0.1  # larger vocabularies have this share of a field's variance
_CHUNK = 1 << 16

SCHEMA = Schema(
    columns=(
        Label("label"),
        *(Numeric(name, transform="quantile", buckets=32) for name in _NUMERIC),
        *(Categorical(name, min_count=5) for name in _CATEGORICAL),
    ),
    text=TextFormat("\t", header=False, quoting=False),
)


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Rows and their true logits.

    Attributes:
      table: The columns of ``SCHEMA`` in order; a null is a missing cell.
      logits: ln(p / (1 - p)) of the probability p that each label was drawn with.
    """

    table: pa.Table
    logits: Float64[np.ndarray, "rows"]


@dataclasses.dataclass(frozen=True)
class Truth:
    """The true effects, which a model must learn.

    Attributes:
      bias: The logit of a row without effects.
      values: The strings of each categorical field, most frequent first.
      effects: For each field, an array with the columns (w, v_1 .. v_4, s). Categorical fields have
        one row per value of ``values``, numeric fields one row per element of ``numeric_basis``, to
        be summed; the last row is for a missing cell.
      coefficients: The c_t of the fields of ``PRODUCTS[t]``.
    """

    bias: float
    values: Mapping[str, pa.Array]
    effects: Mapping[str, np.ndarray]
    coefficients: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Simulator:
    """Draws rows whose labels follow a factorisation machine with a few products on top.

    logit = b + Σ_f w_f(x_f) + Σ_g Σ_{i<j in g} ⟨v_i(x_i), v_j(x_j)⟩ + Σ_t c_t Π_{f in t} s_f(x_f)

    over all fields f, the groups g of ``PAIR_GROUPS`` and the triples and quadruples t of
    ``PRODUCTS``. A categorical field has its own w, v and s for each value; those of a numeric
    field are smooth functions of ln(1 + |x|). A missing cell has its own as well, so the logit
    depends on nothing hidden and no predictor is better. Fields are independent and each effect has
    mean 0, so the terms are uncorrelated: LR can learn only the first sum, an FM the first two.

    Value k of a vocabulary of V has probability ln((k + 2) / (k + 1)) / ln(V + 1), which is
    Zipf's law; counts are log-logistic.

    Attributes:
      seed: Determines the truth. Rows depend on the seed and on the stream.
      first_order: Variance of the logit from the first sum.
      pairwise: Variance from the second sum.
      higher_order: Variance from the third sum.
      positive_rate: Expected share of positive labels.

    Raises:
      UserError: a variance is negative, or ``positive_rate`` is outside (0, 1).
    """

    seed: int = 0
    first_order: float = 0.9
    pairwise: float = 1.5
    higher_order: float = 0.5
    positive_rate: float = 0.25

    def __post_init__(self):
        for name in ("first_order", "pairwise", "higher_order"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} is a variance; make it 0 or more")
        if not 0 < self.positive_rate < 1:
            raise UserError(f"positive_rate={self.positive_rate} must lie between 0 and 1")

    def simulate(self, rows: int, *, stream: int) -> Simulated:
        """Draws rows; equal arguments give equal rows, different streams independent ones.

        Raises:
          UserError: ``rows`` is less than 1, or ``stream`` is negative.
        """
        if rows < 1 or stream < 0:
            raise UserError(f"rows={rows} must be 1 or more and stream={stream} 0 or more")
        rng = np.random.default_rng([self.seed, 1, stream])
        truth = self.truth
        tables, logits = [], []
        for start in range(0, rows, _CHUNK):
            cells = _draw_cells(rng, min(_CHUNK, rows - start))
            first, pairs, products = _terms(cells, truth.effects)
            logit = truth.bias + first + pairs.sum(0) + np.dot(truth.coefficients, products)
            label = rng.random(len(logit)) < _sigmoid(logit)
            tables.append(_table(label, cells, truth.values))
            logits.append(logit)
        return Simulated(table=pa.concat_tables(tables), logits=np.concatenate(logits))

    @functools.cached_property
    def truth(self) -> Truth:
        """Random effects, centred and scaled on one calibration sample."""
        rng = np.random.default_rng([self.seed, 0])
        cells = _draw_cells(rng, _CHUNK)
        effects = {name: _standard_effects(name, cells[name], rng) for name in cells}
        for name, (size, _) in _CATEGORICAL.items():
            effects[name][:, _FIRST] *= _LARGE_SHARE**0.5 if size > _LARGE else 1.0
        first, pairs, products = _terms(cells, effects)
        for effect in effects.values():
            effect[:, _FIRST] *= (self.first_order / first.var()) ** 0.5
        for group, pair in zip(PAIR_GROUPS, pairs, strict=True):
            for name in group:  # ⟨v, v'⟩ has the scale of both
                effects[name][:, _LATENT] *= (self.pairwise / len(pairs) / pair.var()) ** 0.25
        share = self.higher_order / len(products)
        coefficients = tuple(float((share / product.var()) ** 0.5) for product in products)
        first, pairs, products = _terms(cells, effects)
        signal = first + pairs.sum(0) + np.dot(coefficients, products)
        bias = _bias_for_rate(signal, self.positive_rate)
        values = {name: _hex_values(size, rng) for name, (size, _) in _CATEGORICAL.items()}
        return Truth(bias, values, effects, coefficients)


def numeric_basis(name: str, x: Float[np.ndarray, "rows"]) -> Float64[np.ndarray, "rows 3"]:
    """(1, tanh t, exp(-t²)) for t = (ln(1 + |x|) - location) / width."""
    location, tail, _ = _NUMERIC[name]
    t = (np.log1p(np.abs(x)) - location) / (2 * tail)
    return np.stack([np.ones_like(t), np.tanh(t), np.exp(-t * t)], axis=1)


def _draw_cells(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Numeric fields as floats, NaN for missing; categorical fields as ranks, last = missing."""
    cells = {}
    for name, (location, tail, percent) in _NUMERIC.items():
        missing, u = _split_uniform(rng.random(rows), percent / 100)
        u = np.clip(u, 1e-9, 1 - 1e-9)
        count = np.floor(np.exp(location + tail * np.log(u / (1 - u)))) + _OFFSET.get(name, 0.0)
        cells[name] = np.where(missing, np.nan, count)
    for name, (size, percent) in _CATEGORICAL.items():
        missing, u = _split_uniform(rng.random(rows), percent / 100)
        rank = np.exp(u * np.log(size + 1)).astype(np.int32) - 1
        cells[name] = np.where(missing, size, np.minimum(rank, size - 1))
    return cells


def _split_uniform(u: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """One uniform number decides both whether a cell is missing and, if not, its value."""
    return u < share, np.clip((u - share) / (1 - share), 0.0, 1.0)


def _effect_of(name: str, cell: np.ndarray, effect: np.ndarray) -> np.ndarray:
    if name in _CATEGORICAL:
        return effect.take(cell, axis=0)
    missing = np.isnan(cell)
    basis = numeric_basis(name, np.where(missing, 0.0, cell))
    return np.where(missing[:, None], effect[-1], basis @ effect[:-1])


def _standard_effects(name: str, cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal effects, shifted and scaled to mean 0 and variance 1 over the cells."""
    size = _CATEGORICAL[name][0] if name in _CATEGORICAL else 3
    effect = rng.standard_normal((size + 1, _SCALAR + 1))
    seen = _effect_of(name, cell, effect)
    mean, std = seen.mean(0), seen.std(0)
    if name in _CATEGORICAL:
        return (effect - mean) / std
    effect[[0, -1]] -= mean  # the constant of the basis, and the missing cell
    return effect / std


def _terms(
    cells: Mapping[str, np.ndarray], effects: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First-order sum [rows], pairwise sums [groups, rows] and products [products, rows]."""
    inside = {name for fields in PAIR_GROUPS + PRODUCTS for name in fields}
    columns = {
        name: _effect_of(name, cell, effects[name] if name in inside else effects[name][:, :1])
        for name, cell in cells.items()
    }
    first = sum((column[:, _FIRST] for column in columns.values()), np.zeros(()))
    pairs = [_pair_sum([columns[name][:, _LATENT] for name in group]) for group in PAIR_GROUPS]
    products = [np.prod([columns[name][:, _SCALAR] for name in t], axis=0) for t in PRODUCTS]
    return first, np.stack(pairs), np.stack(products)


def _pair_sum(latents: list[np.ndarray]) -> np.ndarray:
    """Σ_{i<j} ⟨v_i, v_j⟩ by the FM identity ½(|Σ v|² - Σ |v|²)."""
    total = np.sum(latents, axis=0)
    return 0.5 * (total * total - np.sum(np.square(latents), axis=0)).sum(axis=1)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logit))


def _bias_for_rate(signal: np.ndarray, rate: float) -> float:
    """Finds the bias by bisection, since the mean probability increases with it."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _sigmoid(middle + signal).mean() < rate else (low, middle)
    return 0.5 * (low + high)


def _hex_values(size: int, rng: np.random.Generator) -> pa.Array:
    """Distinct 8-digit hex strings: multiplying by an odd number permutes 32-bit integers."""
    start, step = rng.integers(1 << 32), rng.integers(1 << 31) * 2 + 1
    codes = (int(start) + np.arange(size, dtype=np.uint64) * np.uint64(step)) % np.uint64(1 << 32)
    return pa.array([f"{code:08x}" for code in codes.tolist()], pa.string())


def _table(
    label: np.ndarray, cells: Mapping[str, np.ndarray], values: Mapping[str, pa.Array]
) -> pa.Table:
    columns: dict[str, pa.Array] = {SCHEMA.label.name: pa.array(label.astype(np.float32))}
    for name, cell in cells.items():
        if name in values:
            ranks = pa.array(cell, mask=cell == len(values[name]))
            columns[name] = values[name].take(ranks)
        else:
            columns[name] = pa.array(cell, pa.float64(), from_pandas=True)
    return pa.table(columns)
