"""Launchers and recipes; the only package that knows flags and config files.

In a clone this package is ``experiments`` (``python -m experiments.VERB``). The wheel ships it as
``deepfm_jax.experiments``, without benchmarks and Cloud TPU, and starts it by ``deepfm-jax VERB``.
Modules that the wheel ships therefore import one another relatively.
"""
