"""Preparation on Apache Beam: the same files as without it."""
