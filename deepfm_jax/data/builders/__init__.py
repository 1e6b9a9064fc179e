"""One TFDS builder per data set; ``BUILDERS`` maps the names used in configs to the classes."""

from deepfm_jax.data.builders.click_log import ClickLogBuilder
from deepfm_jax.data.builders.criteo import Criteo
from deepfm_jax.data.builders.frappe import Frappe
from deepfm_jax.data.builders.synthetic import Synthetic

BUILDERS: dict[str, type[ClickLogBuilder]] = {
    "criteo": Criteo,
    "frappe": Frappe,
    "synthetic": Synthetic,
}

__all__ = ["BUILDERS", "ClickLogBuilder", "Criteo", "Frappe", "Synthetic"]
