"""Axis letters and array types, shared by every einsum, shape comment and annotation.

====== ============================================== =======================
letter meaning                                        name in annotations
====== ============================================== =======================
B      examples of a batch                            ``batch``
F      fields: declared columns and their crosses     ``fields``
S      slots of all fields; one or more per field     ``slots``
D      embedding dimension                            ``dim``
V      rows of the embedding table, all fields        ``rows``
H      hidden width of a tower or a CIN layer         ``hidden``
P      F(F - 1)/2 pairs of fields i < j               ``pairs``
N      attention heads, or heads of a fusion          ``heads``
A      width of an attention or fusion head           ``head``
X      width of a flat input, usually F D             ``width``
E      experts                                        ``experts``
R      rank of a low-rank product                     ``rank``
T      tasks                                          ``tasks``
====== ============================================== =======================

A feature is an (id, value) pair. Ids are int32 and local to their field: 0 <= id < field_dims[f].
Id 0 of a field is for values that are missing or were not seen when the encoder was fitted. An
empty slot, in a field with several slots, has id -1 and value 0.
"""

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Int

# Arrays that JAX functions accept, including NumPy arrays.
AnyArray: TypeAlias = jax.Array | np.ndarray

Ids: TypeAlias = Int[AnyArray, "batch slots"]
Values: TypeAlias = Float[AnyArray, "batch slots"]
Dense: TypeAlias = Float[AnyArray, "batch numbers"]
Embeddings: TypeAlias = Float[AnyArray, "batch fields dim"]
FirstOrder: TypeAlias = Float[AnyArray, "batch fields"]
Logits: TypeAlias = Float[Array, "batch"]
PyTree: TypeAlias = Any
