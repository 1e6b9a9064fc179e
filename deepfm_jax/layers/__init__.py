"""Interaction layers, one per file. Layers depend neither on the table nor on batch dicts."""

from deepfm_jax.layers.cin import CompressedInteractionNetwork
from deepfm_jax.layers.compute_dtype import ComputeDtype, resolve_compute_dtype
from deepfm_jax.layers.cross import CrossNetwork, LowRankCrossNetwork
from deepfm_jax.layers.factorization_machine import bi_interaction, factorization_machine
from deepfm_jax.layers.gating import BilinearFusion, FeatureGate
from deepfm_jax.layers.interacting import InteractingLayer
from deepfm_jax.layers.mlp import MLP
from deepfm_jax.layers.products import KernelProducts, inner_products, outer_product_of_sum

__all__ = [
    "MLP",
    "BilinearFusion",
    "CompressedInteractionNetwork",
    "ComputeDtype",
    "CrossNetwork",
    "FeatureGate",
    "InteractingLayer",
    "KernelProducts",
    "LowRankCrossNetwork",
    "bi_interaction",
    "factorization_machine",
    "inner_products",
    "outer_product_of_sum",
    "resolve_compute_dtype",
]
