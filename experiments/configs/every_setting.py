"""All settings of a run with the library's defaults: what a config has, a flag can change.

``--config.optimizer.clip_norm=1`` changes only keys that a config file has, so that a misspelt one
is told. Each config therefore has them all, and names those that it changes.
"""

import dataclasses
from typing import Any

from ml_collections import config_dict

from deepfm_jax.models import MODELS

# Attributes of a model that its data and Flax give it.
_GIVEN = ("field_dims", "crosses", "parent", "name")


def data_settings(name: str, **changes: Any) -> dict[str, Any]:
    """See ``deepfm_jax.training.settings.DataSettings``."""
    defaults = dict(name=name, folder="data", options=dict(), label="", negative_rate=1.0)
    return {**defaults, **changes}


def model_settings(name: str, **changes: Any) -> dict[str, Any]:
    """All hyperparameters of a model; see its class in ``deepfm_jax.models``."""
    fields = {field.name: field.default for field in dataclasses.fields(MODELS[name])}  # pyright: ignore[reportArgumentType]
    defaults = {key: default for key, default in fields.items() if key not in _GIVEN}
    return {"name": name, **defaults, **changes}


def optimizer_settings(**changes: Any) -> dict[str, Any]:
    """See ``deepfm_jax.training.settings.OptimizerSettings``."""
    defaults = dict(
        name="adam",
        table="auto",
        row_optimizer="",
        first_order_optimizer="",
        row_learning_rate=0.0,
        first_order_learning_rate=0.0,
        learning_rate=1e-3,
        schedule="constant",
        warmup_steps=0,
        plateau_factor=0.1,
        plateau_floor=1e-6,
        plateau_patience=0,
        clip_norm=0.0,
        embedding_l2=0.0,
        embedding_l1=0.0,
        first_order_l2=config_dict.placeholder(float),
        first_order_l1=config_dict.placeholder(float),
        dense_l2=0.0,
    )
    return {**defaults, **changes}


def loop_settings(**changes: Any) -> dict[str, Any]:
    """See ``deepfm_jax.training.settings.LoopSettings``."""
    defaults = dict(
        batch_size=4096,
        epochs=10,
        monitor="auc",
        patience=2,
        min_improvement=1e-6,
        evaluations_per_epoch=1,
        checkpoint_steps=500,
        log_steps=10,
        eval_batch_size=8192,
        streams=0,
    )
    return {**defaults, **changes}


def partitioning_settings(**changes: Any) -> dict[str, Any]:
    """See ``deepfm_jax.distributed.partitioning.Partitioning``."""
    defaults = dict(replicas=1, rules=(), exchange_capacity=1.0, exchange_dtype="float32")
    return {**defaults, **changes}
