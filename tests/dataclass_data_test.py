import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional

import pytest

from deepfm_jax import UserError
from deepfm_jax.dataclass_data import from_data, to_data


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float
    kind: Literal["sgd", "adam", 1] = "sgd"


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner(0.5)
    second: Inner | None = None
    # The older spelling must be read too, so it stays.
    third: Optional[Inner] = None  # noqa: UP045
    sizes: tuple[int, ...] = (4, 2)
    pair: tuple[str, int] = ("a", 1)
    names: Sequence[str] = ()
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    parts: tuple[Inner, ...] = ()
    either: Mapping[str, Inner | str] = dataclasses.field(default_factory=dict)
    free: Any = None
    made: int = dataclasses.field(default=0, init=False)


FULL = Outer(
    "x",
    inner=Inner(0.1, "adam"),
    second=Inner(2.0),
    sizes=(1, 2, 3),
    pair=("b", 2),
    names=("c", "d"),
    rates={"e": 0.25},
    parts=(Inner(1.0), Inner(3.0, 1)),
    either={"f": Inner(4.0), "g": "text"},
    free={"anything": [1, None]},
)


def test_json_carries_nested_dataclasses_whole():
    for item in (FULL, Outer("y")):
        data = json.loads(json.dumps(to_data(item)))
        data.pop("made")
        assert from_data(Outer, data, "run") == item


def test_every_field_is_written():
    assert to_data(Inner(1.0)) == {"rate": 1.0, "kind": "sgd"}
    assert to_data(Outer("y"))["sizes"] == [4, 2]


def test_a_whole_number_becomes_a_float_where_one_is_asked_for():
    rate = from_data(Inner, {"rate": 1}, "run").rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"^run: \[\] must be an object$"),
        ({}, "^run needs name, a string$"),
        ({"name": "x", "sizs": ()}, "^run has no option 'sizs'; did you mean 'sizes'"),
        ({"name": "x", "zzz": 1}, "^run has no option 'zzz'; use one of name, inner, second"),
        ({"name": "x", "made": 1}, "^run has no option 'made'"),
        ({"name": 5}, "^run: name=5 must be a string$"),
        ({"name": "x", "inner": {}}, "^run.inner needs rate, a finite number$"),
        ({"name": "x", "inner": {"rate": "1"}}, "^run.inner: rate='1' must be a finite number$"),
        ({"name": "x", "inner": {"rate": True}}, "^run.inner: rate=True must be a finite number$"),
        (
            {"name": "x", "inner": {"rate": 1, "kind": True}},
            "kind=True must be one of 'sgd'",
        ),
        ({"name": "x", "inner": 3}, "^run: inner=3 must be an object$"),
        ({"name": "x", "second": 3}, "^run: second=3 must be an object or null$"),
        ({"name": "x", "third": {"rat": 1}}, "^run.third has no option 'rat'; did you mean 'rate'"),
        ({"name": "x", "sizes": 3}, "^run: sizes=3 must be a list, each item a whole number$"),
        ({"name": "x", "sizes": [1.5]}, "^run: sizes=.* must be a list, each item a whole"),
        ({"name": "x", "names": "abc"}, "^run: names='abc' must be a list, each item a string$"),
        ({"name": "x", "pair": ["a"]}, "pair=.* must be a list of 2: a string, a whole number$"),
        (
            {"name": "x", "rates": {"e": "f"}},
            "rates=.* must be an object, each value a finite",
        ),
        (
            {"name": "x", "rates": {1: 0.5}},
            "rates=.* must be an object, each value a finite",
        ),
        ({"name": "x", "rates": [1]}, "rates=.* must be an object, each value a finite"),
        ({"name": "x", "parts": [{"rate": 1}, {"rte": 1}]}, r"^run.parts\[1\] has no option 'rte'"),
        ({"name": "x", "either": {"f": {"rat": 1}}}, "^run.either.f has no option 'rat'"),
    ],
)
def test_a_mistake_is_named_by_where_it_is(options, message):
    with pytest.raises(UserError, match=message):
        from_data(Outer, options, "run")
