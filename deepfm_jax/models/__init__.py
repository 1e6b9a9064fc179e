"""One short file for each paper; ``MODELS`` maps the names used in configs to the classes.

``Model`` says how all are called, and what they share. A model pairs fields: it reads one vector of
each (see ``inputs``), and never pairs the values of one field with each other, as libFM does, which
knows no fields.

DeepFM, Wide & Deep, xDeepFM and AutoInt+ have two constants where their papers' equations have one:
``bias`` (AutoInt+: ``out.bias``) and ``tower.out.bias``, the bias of the tower's last layer. Only
their sum matters; it moves about twice as fast as one would.
"""

from deepfm_jax.models.autoint import AutoInt
from deepfm_jax.models.dcn_v2 import DCNv2
from deepfm_jax.models.deepfm import DeepFM
from deepfm_jax.models.dnn import DNN
from deepfm_jax.models.final_mlp import FinalMLP
from deepfm_jax.models.fm import FM
from deepfm_jax.models.fnn import FNN
from deepfm_jax.models.lr import LR
from deepfm_jax.models.model import EmbeddingModel, Model, Outputs, TowerModel
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
    "EmbeddingModel",
    "FinalMLP",
    "Model",
    "Outputs",
    "TowerModel",
    "WideDeep",
    "XDeepFM",
    "build_model",
]
