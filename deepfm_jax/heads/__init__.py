"""Tasks: how a model's logits meet the labels."""

from deepfm_jax.heads.one_task import OneTask

__all__ = ["OneTask"]
