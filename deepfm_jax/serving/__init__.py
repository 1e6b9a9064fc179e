"""Predicts probabilities of raw rows with a trained model."""

from deepfm_jax.serving.predictor import Predictor

__all__ = ["Predictor"]
