"""The kinds of columns in a click log, one file each, and their registry ``KINDS``."""

from deepfm_jax.columns.categorical import Categorical
from deepfm_jax.columns.category import Category
from deepfm_jax.columns.column import Column, Field
from deepfm_jax.columns.encoding_options import EncodingOptions, NumericTransform
from deepfm_jax.columns.group import Group
from deepfm_jax.columns.history import History
from deepfm_jax.columns.ignored import Ignored
from deepfm_jax.columns.label import Label
from deepfm_jax.columns.multi_valued import MultiValued
from deepfm_jax.columns.numeric import Numeric
from deepfm_jax.columns.registry import KINDS
from deepfm_jax.columns.timestamp import Timestamp
from deepfm_jax.columns.vector import Vector
from deepfm_jax.columns.weight import Weight

__all__ = [
    "KINDS",
    "Categorical",
    "Category",
    "Column",
    "EncodingOptions",
    "Field",
    "Group",
    "History",
    "Ignored",
    "Label",
    "MultiValued",
    "Numeric",
    "NumericTransform",
    "Timestamp",
    "Vector",
    "Weight",
]
