"""The Avazu click-through rate challenge, in its original CSV layout."""

from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.splitting import ReadSplit
from deepfm_jax.schema import Categorical, Ignored, Label, Schema, Timestamp

_HASHED = (
    *("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model"),
)
_NUMBERED = ("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22)))


class Avazu(ClickLogBuilder, skip_registration=True):
    """Avazu: whether a mobile user clicks on an advertisement; 23 categorical fields.

    The hour (``YYMMDDHH``) gives two of them, the hour of the day and the weekday; ``id`` numbers
    the rows and is not read. Reads ``train.csv``, ``valid.csv`` and ``test.csv``, with a header,
    plain, ``.gz`` or ``.zst``. Without a ``valid`` file (the challenge's own ``test`` has no
    labels), the rows of ``train`` are split 80/10/10 by a seeded draw, as in the literature
    (AutoInt; Avazu_x4 of BARS), or by time with ``time_column="hour"``.

    Source: Avazu 2014, https://www.kaggle.com/c/avazu-ctr-prediction.
    """

    name = "avazu"
    SCHEMA = Schema(
        columns=(
            Ignored("id"),
            Label("click"),
            Timestamp("hour", format="%y%m%d%H", parts=("hour", "weekday")),
            Categorical("C1", dtype="integer", min_count=2),
            Categorical("banner_pos", dtype="integer", min_count=2),
            *(Categorical(name, min_count=2) for name in _HASHED),
            *(Categorical(name, dtype="integer", min_count=2) for name in _NUMBERED),
        )
    )

    def read_splits(self) -> dict[str, ReadSplit]:
        return self._given_or_drawn((".csv",))
