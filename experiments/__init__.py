"""Launchers and recipes; the only place that knows flags and config files.

In a clone this package is ``experiments`` (``python -m experiments.VERB``). The wheel has it as
``deepfm_jax.experiments``, without benchmarks and Cloud TPU, and starts it by ``deepfm-jax VERB``.
What the wheel has therefore imports its neighbours relatively.
"""
