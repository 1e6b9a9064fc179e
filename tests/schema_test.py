import json

import pytest

from deepfm_jax import Categorical, Ignored, Label, Numeric, Schema, TextFormat, UserError

SCHEMA = Schema(
    (
        Label("y"),
        Categorical("c", dtype="integer", min_count=3, separate_missing=True),
        Numeric("x", transform="quantile", buckets=7),
        Ignored("z"),
    ),
    TextFormat("\t", header=False, quoting=False),
)


def test_json_carries_it_whole():
    assert Schema.from_dict(json.loads(json.dumps(SCHEMA.to_dict()))) == SCHEMA


def test_fields_and_label():
    assert [field.name for field in SCHEMA.fields] == ["c", "x"]
    assert SCHEMA.label.name == "y"


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
