"""Metrics of trained models, and comparisons of several with intervals."""
