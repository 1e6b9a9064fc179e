"""One short file per paper; ``MODELS`` maps the names used in configs to the classes.

All are called alike. ``model.apply(variables, ids, values, train=..., rngs=...)`` returns logits
[B]: ids [B, S] int32, local to their fields; values [B, S], all 1 when None. With ``train``,
dropout draws from the rng ``dropout`` and batch norm moves the collection ``batch_stats``. Ids
at hand that are out of range raise a ``UserError`` (see ``embedding.check_ids``).

``field_dims`` has the rows of each field, or a ``FieldSpec`` for one with several slots (a
multi-valued field) or with the rows of another. Whatever reads fields then reads the sums over
their slots, e_f = sum_k v_{i_k} x_k: a factorization machine pairs fields, and not the values of
one field with each other (libFM, which knows no fields, pairs those too).

DeepFM, Wide & Deep, xDeepFM and AutoInt+ add a constant twice where their papers' equations have
one: ``bias`` (AutoInt+: ``out.bias``), and ``tower.out.bias`` of the tower's last layer. Only their
sum matters; it moves about twice as fast as one would.

``apply(..., method="from_rows")`` takes the rows of the table in place of ids, gathered already.
"""

from deepfm_jax.models.autoint import AutoInt
from deepfm_jax.models.dcn_v2 import DCNv2
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.dnn import DNN
from deepfm_jax.models.final_mlp import FinalMLP
from deepfm_jax.models.fm import FM
from deepfm_jax.models.fnn import FNN
from deepfm_jax.models.lr import LR
from deepfm_jax.models.pnn import PNN
from deepfm_jax.models.registry import MODELS, build_model
from deepfm_jax.models.wide_deep import WideDeep
from deepfm_jax.models.xdeepfm import XDeepFM

__all__ = [
    "DNN",
    "FM",
    "FNN",
    "LR",
    "MODELS",
    "PNN",
    "AutoInt",
    "DCNv2",
    "DeepFM",
    "FinalMLP",
    "WideDeep",
    "XDeepFM",
    "build_model",
]
