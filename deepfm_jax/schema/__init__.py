"""The schema of a click log: declared once, stored with the data, checkpoints and models."""

from deepfm_jax.cells.text_format import TextFormat
from deepfm_jax.columns import (
    KINDS,
    Categorical,
    Category,
    Column,
    Field,
    Group,
    History,
    Ignored,
    Label,
    MultiValued,
    Numeric,
    NumericTransform,
    Timestamp,
    Vector,
    Weight,
)
from deepfm_jax.schema.cross import Cross
from deepfm_jax.schema.schema import Schema

__all__ = [
    "KINDS",
    "Categorical",
    "Category",
    "Column",
    "Cross",
    "Field",
    "Group",
    "History",
    "Ignored",
    "Label",
    "MultiValued",
    "Numeric",
    "NumericTransform",
    "Schema",
    "TextFormat",
    "Timestamp",
    "Vector",
    "Weight",
]
