"""Metrics of trained models, and comparisons of models with confidence intervals."""
