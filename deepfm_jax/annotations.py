"""Types with a range, for the annotations of settings and hyperparameters.

A dataclass states a field's range where it declares the field, as in ``epochs: PositiveInt = 10``;
``dataclass_data`` checks it.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias


class Constraint(NamedTuple):
    """A condition beyond a type, for ``Annotated``.

    Attributes:
      text: The condition as it follows the name of the type in a message.
      holds: Whether a value of the type meets the condition.
    """

    text: str
    holds: Callable[[Any], bool]


PositiveInt: TypeAlias = Annotated[int, Constraint(" of at least 1", lambda n: n >= 1)]
NonNegativeInt: TypeAlias = Annotated[int, Constraint(" of at least 0", lambda n: n >= 0)]
PositiveFloat: TypeAlias = Annotated[float, Constraint(" above 0", lambda x: x > 0)]
NonNegativeFloat: TypeAlias = Annotated[float, Constraint(" of at least 0", lambda x: x >= 0)]
# A share of which nothing, but not everything, may be taken, such as a dropout probability.
ShareBelowOne: TypeAlias = Annotated[
    float, Constraint(" of at least 0 and below 1", lambda x: 0 <= x < 1)
]
OpenShare: TypeAlias = Annotated[float, Constraint(" above 0 and below 1", lambda x: 0 < x < 1)]
# NumPy takes no seed below 0, and JAX none of 2^63 or more.
Seed: TypeAlias = Annotated[int, Constraint(" from 0 to 2^63 - 1", lambda n: 0 <= n < 2**63)]

NOT_EMPTY = Constraint(" of at least one item", lambda items: len(items) > 0)
DISTINCT = Constraint(" without duplicates", lambda items: len(set(items)) == len(items))
