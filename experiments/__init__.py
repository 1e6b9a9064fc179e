"""Launchers: ``python -m experiments.VERB``; the only place that knows flags and config files."""
