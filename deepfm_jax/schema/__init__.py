"""What the columns of a click log mean: declared once, carried by data, checkpoint and model."""

from deepfm_jax.schema.columns import (
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
from deepfm_jax.schema.schema import Cross, Schema, TextFormat

__all__ = [
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
