"""Preparation on Apache Beam, which writes the same files as without it."""
