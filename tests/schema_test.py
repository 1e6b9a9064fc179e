import dataclasses
import json

import pytest

from deepfm_jax import (
    Categorical,
    Group,
    Ignored,
    Label,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    UserError,
    Weight,
)
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


LATER = Schema(
    (
        Label("y", values=("no", "yes")),
        Categorical("c", max_size=9, min_count=2),
        Categorical("h", hash_buckets=100),
        Categorical("i", dtype="id", size=5),
        Timestamp("t", "%y%m%d%H", parts=("hour", "weekend"), separate_missing=True),
        Timestamp("u", parts=()),
        Label("w", positive="never", rank=-1),
        Weight("n"),
        Categorical("g", group=True),
    ),
    TextFormat(trim=True, missing=("?", "NA")),
)


def test_json_carries_it_whole():
    for schema in (SCHEMA, CROSSED, LATER):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_a_schema_without_crosses_is_written_as_before_there_were_any():
    assert SCHEMA.to_dict().keys() == {"text", "columns"}


def test_a_schema_without_later_options_is_written_as_before_there_were_any():
    # The fingerprint of an encoder is made of this text.
    assert json.dumps(SCHEMA.to_dict(), sort_keys=True) == (
        '{"columns": [{"kind": "label", "name": "y"}, {"dtype": "integer", "kind": "categorical", '
        '"min_count": 3, "name": "c", "separate_missing": true}, {"buckets": 7, "kind": "numeric", '
        '"min_count": 1, "name": "x", "separate_missing": false, "transform": "quantile"}, '
        '{"kind": "ignored", "name": "z"}], "text": {"delimiter": "\\t", "header": false, '
        '"quoting": false}}'
    )


def test_times_are_fields_of_their_parts():
    assert LATER.slot_names == ("c", "h", "i", "t_hour", "t_weekend", "g")
    assert all(field.separate_missing for field in LATER.fields[-3:-1])
    assert [column.name for column in LATER.inputs] == ["c", "h", "i", "t", "g"]
    with pytest.raises(UserError, match="declares column 't_hour' twice"):
        Schema((*LATER.columns, Ignored("t_hour")))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Categorical, {"max_size": 0}, "'a': max_size=0 must be from 1"),
        (Categorical, {"min_count": 0}, "'a': min_count=0 must be from 1"),
        (Categorical, {"hash_buckets": 2**31}, "hash_buckets=2147483648 must be from 1 to"),
        (Categorical, {"dtype": "id"}, "dtype 'id' and size go together"),
        (Categorical, {"size": 3}, "dtype 'id' and size go together"),
        (Categorical, {"dtype": "id", "size": 3, "hash_buckets": 3}, "are not hashed"),
        (Categorical, {"dtype": "id", "size": 3, "min_count": 2}, "are of a vocabulary"),
        (Categorical, {"hash_buckets": 3, "max_size": 2}, "are of a vocabulary"),
        (Numeric, {"buckets": 0}, "'a': buckets=0 must be from 1"),
        (Timestamp, {"format": "hourly"}, "format='hourly' is unknown; use 'iso'"),
        (Timestamp, {"parts": ("hour", "hour")}, "has one of them twice"),
        (Label, {"values": ("yes", "yes")}, "must be two texts"),
        (Label, {"values": ("no", "yes"), "positive": "yes"}, "without values beside it"),
        (Label, {"positive": " "}, "positive=' ' must be a text"),
    ],
)
def test_an_impossible_column_is_refused(kind, options, message):
    with pytest.raises(UserError, match=message):
        kind("a", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": 5}, "an object with a list of columns"),
        ({"column": []}, "has text, columns and crosses, and no 'column'"),
        ({"text": {"delimeter": ";"}}, "text has no option 'delimeter'; did you mean 'delimiter'"),
        ({"text": {"delimiter": ";;"}}, "delimiter=';;' must be one"),
        ({"text": {"missing": "NA"}}, "text: missing='NA' must be a list, of each a text"),
        ({"text": {"header": 1}}, "text: header=1 must be true or false"),
        ({"columns": ["c"]}, "column 'c' needs a kind and a name"),
        ({"columns": [{"kind": "label"}]}, "needs a kind and a name"),
        ({"columns": [{"kind": "label", "name": 5}]}, "column 5: name=5 must be a text"),
        ({"columns": [{"kind": "numeric", "name": "x", "transform": "ln"}]},
         "column 'x': transform='ln' must be one of log, log2_floor"),
        ({"columns": [{"kind": "categorical", "name": "x", "min_count": True}]},
         "column 'x': min_count=True must be a whole number"),
        ({"columns": [{"kind": "categorical", "name": "x", "max_size": "9"}]},
         "max_size='9' must be a whole number or null"),
        ({"columns": [{"kind": "timestamp", "name": "x", "parts": ["second"]}]},
         r"parts=\['second'\] must be a list, of each one of hour, weekday"),
        ({"columns": [{"kind": "label", "name": "x", "values": ["a"]}]}, "must be a list, of two"),
        ({"crosses": [{"columns": "a,b"}]}, "cross: columns='a,b' must be a list"),
        ({"crosses": ["a"]}, "cross: 'a' must be an object"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_written_schema_is_named(change, message):
    with pytest.raises(UserError, match=message):
        Schema.from_dict({**json.loads(json.dumps(SCHEMA.to_dict())), **change})


def test_an_option_that_is_left_out_has_its_default():
    columns = [{"kind": "label", "name": "y"}, {"kind": "categorical", "name": "c"}]
    expected = Schema((Label("y"), Categorical("c")))
    assert Schema.from_dict({"columns": columns}) == expected


def test_fields_and_label():
    assert [field.name for field in SCHEMA.fields] == ["c", "x"]
    assert SCHEMA.label.name == "y"


def test_labels_are_in_the_order_of_their_ranks_and_then_of_the_file():
    schema = Schema((Label("b", rank=1), Label("y"), Label("a", rank=1), Categorical("c")))
    assert [label.name for label in schema.labels] == ["y", "b", "a"]
    assert schema.label.name == schema.label_named("").name == "y"
    assert schema.label_named("a") == Label("a", rank=1)
    with pytest.raises(UserError, match=r"data\.label='c' is no label .* it has y, b, a"):
        schema.label_named("c")


def test_weight_and_group_are_no_fields():
    assert (LATER.weight, LATER.group) == ("n", "g")
    assert LATER.targets == ("w", "y", "n", "g")
    assert (SCHEMA.weight, SCHEMA.group, SCHEMA.targets) == (None, None, ("y",))
    schema = Schema((Label("y"), Group("u", dtype="integer"), Categorical("c")))
    assert schema.slot_names == ("c",)
    assert schema.group == "u"
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_slots_are_the_fields_and_then_the_crosses():
    assert SCHEMA.slot_names == ("c", "x")
    assert CROSSED.slot_names == ("c", "x", "d", "v", "s", "d x c", "x x c x d")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((Label("y"), Categorical("a"), Numeric("a")), "declares column 'a' twice"),
        ((Label("y"), Ignored("a")), "no categorical, numeric or time column"),
        ((Categorical("a"),), "declares no label"),
        ((Label("y"), Weight("v"), Categorical("a"), Weight("w")), "'v' and 'w' as weights"),
        ((Label("y"), Group("g"), Categorical("a", group=True)), "'g' and 'a' as groups"),
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
