"""Devices and processes: placement of arrays, and agreement of processes."""
