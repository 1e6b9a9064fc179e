"""Every model of ``MODELS`` in each of its forms, small enough for a reference of loops."""

import dataclasses

import jax
import numpy as np

from deepfm_jax import build_model
from deepfm_jax.features import as_features
from tests import references

DIMS = (4, 3, 6, 2)
# Each model in one or more of its forms: the model, its hyperparameters, and those of them that
# its reference takes.
TOWER = {"embed_dim": 3, "mlp_dims": (5, 4), "dropout": 0.3, "init_std": 0.5}
CIN = {"cin_dims": (4, 3)}
STREAMS = {"mlp_dims": (6, 4), "second_mlp_dims": (2,), "gate_dims": (5,), "heads": 2}
OWN_CONTEXT = {"context": (2,), "shared_context": False}
VARIANTS = {
    "lr": ("lr", {}, {}),
    "fm": ("fm", {"embed_dim": 3, "init_std": 0.5}, {}),
    "dnn": ("dnn", TOWER, {}),
    "fnn": ("fnn", TOWER, {}),
    "fnn_relu": ("fnn", TOWER, {"activation": "relu"}),
    "ipnn": ("pnn", TOWER, {"products": ("inner",)}),
    "opnn": ("pnn", TOWER, {"products": ("outer",)}),
    "kpnn": ("pnn", TOWER, {"products": ("kernel",)}),
    "pnn_star": ("pnn", TOWER, {"products": ("inner", "outer")}),
    "wide_deep": ("wide_deep", TOWER, {}),
    "wide_deep_crosses": ("wide_deep", TOWER, {"crosses": 2}),
    "deepfm": ("deepfm", TOWER, {}),
    "deepfm_unshared": ("deepfm", TOWER, {"shared": False}),
    "xdeepfm": ("xdeepfm", TOWER, CIN),
    "xdeepfm_direct": ("xdeepfm", TOWER, {**CIN, "split_half": False}),
    "cin": ("xdeepfm", TOWER, {**CIN, "mlp_dims": ()}),
    "autoint": ("autoint", {**TOWER, "mlp_dims": (), "head_dim": 2}, {}),
    "autoint_plus": ("autoint", {**TOWER, "head_dim": 2}, {"residual": False, "scaled": True}),
    "dcn_v2": ("dcn_v2", TOWER, {}),
    "dcn_v2_stacked": ("dcn_v2", TOWER, {"structure": "stacked"}),
    "dcn_v2_low_rank": ("dcn_v2", {**TOWER, "experts": 3}, {"rank": 2}),
    "cross_alone": ("dcn_v2", {**TOWER, "mlp_dims": ()}, {}),
    "final_mlp": ("final_mlp", {**TOWER, **STREAMS}, {"context": (0,), "second_context": (1, 3)}),
    "final_mlp_own_context": ("final_mlp", {**TOWER, **STREAMS}, OWN_CONTEXT),
    "final_mlp_learnt": ("final_mlp", {**TOWER, **STREAMS}, {}),
    "final_mlp_ungated": ("final_mlp", {**TOWER, **STREAMS}, {"gated": False}),
}  # fmt: skip


def built(variant, **changes):
    name, hyperparameters, shared = VARIANTS[variant]
    return build_model(name, *fields_and_rest(DIMS, {**hyperparameters, **shared, **changes}))


def fields_and_rest(dims, hyperparameters):
    """Fields whose last ``crosses`` are marked as crosses, and the hyperparameters without it."""
    rest = dict(hyperparameters)
    first_cross = len(dims) - rest.pop("crosses", 0)
    features = as_features(dims)
    marked = [dataclasses.replace(f, crossed=i >= first_cross) for i, f in enumerate(features)]
    return marked, rest


def reference(variant, params, ids, values):
    name, _, shared = VARIANTS[variant]
    return references.MODELS[name](params, DIMS, ids, values, **shared)


def drawn(variant, batch=6, seed=0, **changes):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, dim, batch) for dim in DIMS], axis=1).astype(np.int32)
    values = rng.normal(1, 0.5, (batch, len(DIMS))).astype(np.float32)
    model = built(variant, **changes)
    params = model.init(jax.random.key(seed), ids)["params"]
    # What starts at zero would hide its part of the formula.
    leaves, tree = jax.tree.flatten(params)
    leaves = [leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32) for leaf in leaves]
    return model, jax.tree.unflatten(tree, leaves), ids, values
