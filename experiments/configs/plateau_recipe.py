"""The recipe of the BARS benchmark, shared by the configs of several data sets.

Adam with an L2 on the whole embedding table at every step and the gradient norm clipped at 10;
the learning rate falls tenfold whenever validation AUC does not improve, and two such evaluations
in a row end the run.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from deepfm_jax.models import MODELS

from ..recipe import complete


def plateau_config(
    data: str,
    models: Mapping[str, Mapping[str, Any]],
    model: str,
    *,
    embed_dim: int,
    batch_size: int,
    epochs: int,
) -> ConfigDict:
    """Builds the config of one of ``models`` on ``data``.

    Args:
      data: Name of the data set.
      models: By label, ``model``: hyperparameters, with ``name`` if it differs from the label;
        ``optimizer`` and optionally ``loop``: the model's own settings.
      model: A label. An FNN has the first FM of ``models`` as its pretraining stage, for at most
        five epochs, with its own vector length and batch size: changing those changes both stages,
        unless the stage's own keys (``pretraining.model.embed_dim``) are set.
      embed_dim: D of all models that have vectors.
      batch_size: B.
      epochs: Largest number of passes over the training examples.

    Raises:
      ValueError: ``models`` does not have the label, or has an FNN without an FM.
    """
    if model not in models:
        raise ValueError(f"model {model!r} has no settings here; use one of {sorted(models)}")
    sections = _stage(models, model, embed_dim, batch_size, epochs)
    if _name(models, model) != "fnn":
        return complete(data=dict(name=data), **sections)
    fm = next((label for label in models if _name(models, label) == "fm"), None)
    if fm is None:
        raise ValueError(f"model {model!r} starts from an FM, but there are no settings for one")
    # Short and regularized: vectors that already fit the training rows have overfitted them.
    stage = _stage(models, fm, embed_dim, batch_size, 5)
    stage["optimizer"].update(learning_rate=1e-3, l2=dict(table=1e-3))
    config = complete(data=dict(name=data), pretraining=stage, **sections)
    _follow(config, "model", "embed_dim")
    _follow(config, "loop", "batch_size", "eval_batch_size", "streams")
    return config


def _name(models, label: str) -> str:
    return models[label]["model"].get("name", label)


def _follow(config: Any, section: str, *keys: str) -> None:
    """Makes keys of the pretraining stage follow the model's values, also when those change."""
    for key in keys:
        # One-way: setting the stage's value does not change the model's.
        config.pretraining[section][key] = config[section].get_oneway_ref(key)


def _stage(models, label: str, embed_dim: int, batch_size: int, epochs: int) -> dict[str, Any]:
    name = _name(models, label)
    known = {field.name for field in dataclasses.fields(MODELS[name])} if name in MODELS else ()
    vectors = dict(embed_dim=embed_dim, init_std=1e-4)
    vectors = {key: value for key, value in vectors.items() if key in known}
    optimizer = dict(table="dense", schedule="plateau", clip_norm=10.0)
    loop = dict(batch_size=batch_size, epochs=epochs)
    return {
        "model": {"name": name, **vectors, **models[label]["model"]},
        "optimizer": {**optimizer, **models[label]["optimizer"]},
        "loop": {**loop, **models[label].get("loop", {})},
    }
