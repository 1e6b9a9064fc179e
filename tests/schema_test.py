import dataclasses
import json

import pytest

from deepfm_jax import Categorical, Ignored, Label, Numeric, Schema, TextFormat, UserError
from deepfm_jax.schema import Cross

SCHEMA = Schema(
    (
        Label("y"),
        Categorical("c", dtype="integer", min_count=3, separate_missing=True),
        Numeric("x", transform="quantile", buckets=7),
        Ignored("z"),
    ),
    TextFormat("\t", header=False, quoting=False),
)
CROSSED = dataclasses.replace(
    SCHEMA,
    columns=(*SCHEMA.columns, Categorical("d"), Numeric("v"), Numeric("s", "standardise")),
    crosses=(Cross(("d", "c")), Cross(("x", "c", "d"), buckets=50)),
)


def test_json_carries_it_whole():
    for schema in (SCHEMA, CROSSED):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_a_schema_without_crosses_is_written_as_before_there_were_any():
    assert SCHEMA.to_dict().keys() == {"text", "columns"}


def test_fields_and_label():
    assert [field.name for field in SCHEMA.fields] == ["c", "x"]
    assert SCHEMA.label.name == "y"


def test_slots_are_the_fields_and_then_the_crosses():
    assert SCHEMA.slot_names == ("c", "x")
    assert CROSSED.slot_names == ("c", "x", "d", "v", "s", "d x c", "x x c x d")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((Label("y"), Categorical("a"), Numeric("a")), "declares column 'a' twice"),
        ((Label("y"), Ignored("a")), "no categorical or numeric column"),
        ((Categorical("a"),), "declares 0 labels"),
        ((Label("y"), Label("z"), Categorical("a")), "declares 2 labels"),
    ],
)
def test_an_impossible_schema_is_refused(columns, message):
    with pytest.raises(UserError, match=message):
        Schema(columns)


def test_an_unknown_kind_is_named():
    data = SCHEMA.to_dict()
    data["columns"][1]["kind"] = "categorial"
    with pytest.raises(UserError, match="'categorial' is unknown"):
        Schema.from_dict(data)


@pytest.mark.parametrize(
    ("columns", "buckets", "message"),
    [
        (("c",), 10, "cross 'c' needs two columns or more"),
        (("c", "d", "c"), 10, "cross 'c x d x c' has column 'c' twice"),
        (("c", "d"), 0, "cross 'c x d': buckets=0 must be"),
        (("c", "d"), 2**31, "buckets=2147483648 must be"),
        (("c", "e"), 10, "cross 'c x e': 'e' is not a .* column; those are c, x, d, v, s$"),
        (("y", "c"), 10, "'y' is not a categorical or numeric column"),
        (("z", "c"), 10, "'z' is not a categorical or numeric column"),
        (("c", "v"), 10, "transform 'log' makes column 'v' a value.*'quantile' or 'log2_floor'"),
        (("s", "c"), 10, "transform 'standardise' makes column 's' a value"),
        (("c", "d"), 10, "declares cross 'd x c' twice"),
    ],
)
def test_an_impossible_cross_is_refused(columns, buckets, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CROSSED, crosses=(*CROSSED.crosses, Cross(columns, buckets)))
