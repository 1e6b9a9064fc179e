"""Frappe app usage, in the CSV form of the public benchmarks."""

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.splitting import ReadSplit
from deepfm_jax.schema import Categorical, Label, Schema

_FIELDS = (
    "user",
    "item",
    "daytime",
    "weekday",
    "isweekend",
    "homework",
    "cost",
    "weather",
    "country",
    "city",
)


class Frappe(ClickLogBuilder, skip_registration=True):
    """Frappe: which app a user opens in which context; 10 categorical fields.

    Reads ``train.csv``, ``valid.csv`` and ``test.csv`` (or ``.csv.gz``), with a header.

    Source: Baltrunas et al. 2015 (arXiv 1505.03014), in the Frappe_x1 split of BARS.
    """

    name = "frappe"
    SCHEMA = Schema(
        columns=(Label("label"), *(Categorical(name, dtype="integer") for name in _FIELDS))
    )

    def read_splits(self) -> dict[str, ReadSplit]:
        return self._given((".csv",))
