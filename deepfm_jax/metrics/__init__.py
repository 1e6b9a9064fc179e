"""How good probabilities are: logloss, AUC, calibration, and their correction for sampling."""

from deepfm_jax.metrics.binary import BinaryMetrics, Reliability, oracle_coverage
from deepfm_jax.metrics.tasks import TaskMetrics, flat_metrics

__all__ = ["BinaryMetrics", "Reliability", "TaskMetrics", "flat_metrics", "oracle_coverage"]
