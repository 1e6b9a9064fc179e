"""One TFDS builder per data set; ``BUILDERS`` maps the names used in configs to the classes."""

from deepfm_jax.datasets.avazu import Avazu
from deepfm_jax.datasets.census_income import CensusIncome
from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.criteo import Criteo
from deepfm_jax.datasets.criteo_1tb import Criteo1TB
from deepfm_jax.datasets.frappe import Frappe
from deepfm_jax.datasets.libsvm import Libsvm
from deepfm_jax.datasets.movielens import MovieLens
from deepfm_jax.datasets.synthetic import Synthetic
from deepfm_jax.datasets.tabular import Tabular

BUILDERS: dict[str, type[ClickLogBuilder]] = {
    "avazu": Avazu,
    "census_income": CensusIncome,
    "criteo": Criteo,
    "criteo_1tb": Criteo1TB,
    "frappe": Frappe,
    "libsvm": Libsvm,
    "movielens": MovieLens,
    "synthetic": Synthetic,
    "tabular": Tabular,
}

__all__ = [
    "BUILDERS",
    "Avazu",
    "CensusIncome",
    "ClickLogBuilder",
    "Criteo",
    "Criteo1TB",
    "Frappe",
    "Libsvm",
    "MovieLens",
    "Synthetic",
    "Tabular",
]
