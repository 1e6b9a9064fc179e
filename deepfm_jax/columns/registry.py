"""All kinds of columns by name. Add a kind from outside the package to ``KINDS``."""

from deepfm_jax.columns.categorical import Categorical
from deepfm_jax.columns.column import Column
from deepfm_jax.columns.group import Group
from deepfm_jax.columns.history import History
from deepfm_jax.columns.ignored import Ignored
from deepfm_jax.columns.label import Label
from deepfm_jax.columns.multi_valued import MultiValued
from deepfm_jax.columns.numeric import Numeric
from deepfm_jax.columns.timestamp import Timestamp
from deepfm_jax.columns.vector import Vector
from deepfm_jax.columns.weight import Weight

# By ``Column.kind``, as schema files name them.
KINDS: dict[str, type[Column]] = {
    "categorical": Categorical,
    "multivalued": MultiValued,
    "history": History,
    "numeric": Numeric,
    "timestamp": Timestamp,
    "vector": Vector,
    "label": Label,
    "weight": Weight,
    "group": Group,
    "ignored": Ignored,
}
