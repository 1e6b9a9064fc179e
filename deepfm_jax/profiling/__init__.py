"""Reports on the columns of raw data, as text, JSON and one HTML page."""

from deepfm_jax.profiling.columns import ColumnReport
from deepfm_jax.profiling.groups import Group
from deepfm_jax.profiling.inspect import Inspection, inspect_source
from deepfm_jax.profiling.output import describe, write_inspection

__all__ = [
    "ColumnReport",
    "Group",
    "Inspection",
    "describe",
    "inspect_source",
    "write_inspection",
]
