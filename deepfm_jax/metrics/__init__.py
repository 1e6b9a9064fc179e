"""How good probabilities are: logloss, AUC, calibration, and their correction for sampling."""

from deepfm_jax.metrics.binary import BinaryMetrics, Reliability, oracle_coverage

__all__ = ["BinaryMetrics", "Reliability", "oracle_coverage"]
