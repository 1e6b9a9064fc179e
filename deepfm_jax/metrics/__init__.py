"""Metrics of predicted probabilities: logloss, AUC, calibration, and sampling correction."""

from deepfm_jax.metrics.binary import BinaryMetrics, Reliability, oracle_coverage
from deepfm_jax.metrics.tasks import TaskMetrics, flat_metrics

__all__ = ["BinaryMetrics", "Reliability", "TaskMetrics", "flat_metrics", "oracle_coverage"]
