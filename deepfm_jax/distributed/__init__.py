"""Devices and processes: what lies where, and what all processes must agree on."""
