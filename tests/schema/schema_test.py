import dataclasses
import json

import pytest

from deepfm_jax import (
    Categorical,
    Group,
    History,
    Ignored,
    Label,
    MultiValued,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    UserError,
    Vector,
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


SEVERAL = Schema(
    (
        Label("y"),
        Categorical("item", "integer", min_count=2),
        Categorical("next", "integer", shares_with="item"),
        Numeric("x", transform="quantile"),
        MultiValued("g", max_length=2, separator=";", weight_separator=":", combiner="sqrtn"),
        History("past", "integer", max_length=3, shares_with="item"),
    ),
    crosses=(Cross(("item", "x")),),
)
VECTORS = Schema((Label("y"), Vector("a", 3), Categorical("c"), Vector("b", 2, separator=" ")))


def test_json_carries_it_whole():
    for schema in (SCHEMA, CROSSED, LATER, SEVERAL, VECTORS):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_json_holds_every_option():
    assert json.dumps(dataclasses.replace(SCHEMA, columns=SCHEMA.columns[::2]).to_dict()) == (
        '{"text": {"delimiter": "\\t", "header": false, "quoting": false, "trim": false, '
        '"missing": []}, "columns": [{"kind": "label", "name": "y", "values": null, '
        '"positive": null, "rank": 0}, {"kind": "numeric", "name": "x", "transform": "quantile", '
        '"buckets": 7, "min_count": 1, "separate_missing": false}], "crosses": []}'
    )


def test_times_are_fields_of_their_parts():
    assert LATER.slot_names == ("c", "h", "i", "t_hour", "t_weekend", "g")
    assert all(field.separate_missing for field in LATER.fields[-3:-1])
    assert [column.name for column in LATER.inputs] == ["c", "h", "i", "t", "g"]
    with pytest.raises(UserError, match="declares column 't_hour' twice"):
        Schema((*LATER.columns, Ignored("t_hour")))


def test_fields_of_several_values_have_several_slots():
    slots = ("item", "next", "x", "g[0]", "g[1]", "past[0]", "past[1]", "past[2]", "item x x")
    assert SEVERAL.slot_names == slots
    starts = [(of.start, of.stop) for of in SEVERAL.field_slots]
    assert starts == [(0, 1), (1, 2), (2, 3), (3, 5), (5, 8)]
    assert SEVERAL.owners == (0, 0, 2, 3, 0)
    assert SEVERAL.has_values
    assert not dataclasses.replace(SEVERAL, columns=SEVERAL.columns[:4]).has_values
    assert [column.name for column in SEVERAL.inputs] == ["item", "next", "x", "g", "past"]


def test_a_vector_is_a_field_of_numbers_without_slots():
    assert VECTORS.slot_names == ("c",)
    assert VECTORS.dense_size == 5
    assert [column.name for column in VECTORS.inputs] == ["a", "c", "b"]
    assert not VECTORS.has_values
    with pytest.raises(
        UserError, match="column 'a' holds several values in a row, which cannot be"
    ):
        dataclasses.replace(VECTORS, crosses=(Cross(("c", "a")),))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Categorical("a", shares_with="no"), "of 'no', which is not a categorical, .* "
         "use one of item, next, g, past, i$"),
        (Categorical("a", shares_with="x"), "of 'x', which is not a categorical"),
        (Categorical("a", shares_with="t_hour"), "of 't_hour', which is not a categorical"),
        (Categorical("a", "integer", shares_with="next"),
         "of 'next', which shares that of 'item'; name 'item'"),
        (History("a", shares_with="item"),
         "of 'item', but has dtype='string' where that has 'integer'"),
        (MultiValued("a", "id", size=4, shares_with="i"),
         "of 'i', but has size=4 where that has 5"),
    ],
)  # fmt: skip
def test_a_vocabulary_that_cannot_be_shared_is_refused(column, message):
    others = (Timestamp("t"), Categorical("i", "id", size=5))
    with pytest.raises(UserError, match="column 'a' shares the vocabulary " + message):
        Schema((*SEVERAL.columns, *others, column))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MultiValued, {"max_length": 0}, "'a': max_length=0 must be from 1"),
        (MultiValued, {"min_count": 0}, "'a': min_count=0 must be from 1"),
        (MultiValued, {"separator": ""}, "a separator must not be empty"),
        (MultiValued, {"weight_separator": ""}, "a separator must not be empty"),
        (MultiValued, {"weight_separator": "|"}, "separator and weight_separator are both '|'"),
        (MultiValued, {"dtype": "id"}, "dtype 'id' and size go together"),
        (History, {"hash_buckets": 3, "max_size": 2}, "apply to a vocabulary"),
        (History, {"shares_with": "a"}, "'a': shares_with names the column itself"),
        (Categorical, {"shares_with": "b", "min_count": 2}, "min_count is set .* on 'b'"),
        (Categorical, {"shares_with": "b", "max_size": 2}, "max_size is set by the column"),
        (MultiValued, {"shares_with": "b", "hash_buckets": 2}, "hash_buckets is set"),
        (History, {"shares_with": "b", "separate_missing": True}, "separate_missing is set"),
        (Categorical, {"max_size": 0}, "'a': max_size=0 must be from 1"),
        (Categorical, {"min_count": 0}, "'a': min_count=0 must be from 1"),
        (Categorical, {"hash_buckets": 2**31}, "hash_buckets=2147483648 must be from 1 to"),
        (Categorical, {"dtype": "id"}, "dtype 'id' and size go together"),
        (Categorical, {"size": 3}, "dtype 'id' and size go together"),
        (Categorical, {"dtype": "id", "size": 3, "hash_buckets": 3}, "excludes hash_buckets"),
        (Categorical, {"dtype": "id", "size": 3, "min_count": 2}, "apply to a vocabulary"),
        (Categorical, {"hash_buckets": 3, "max_size": 2}, "apply to a vocabulary"),
        (Vector, {"size": 0}, "'a': size=0 must be from 1"),
        (Vector, {"size": 2, "separator": ""}, "a separator must not be empty"),
        (Numeric, {"buckets": 0}, "'a': buckets=0 must be from 1"),
        (Timestamp, {"format": "hourly"}, "format='hourly' is unknown; use 'iso'"),
        (Timestamp, {"parts": ("hour", "hour")}, "has duplicates"),
        (Label, {"values": ("yes", "yes")}, "must be two different texts"),
        (Label, {"values": ("no", "yes"), "positive": "yes"}, "excludes values"),
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
        ({"column": []}, "has only text, columns and crosses, but there is 'column'"),
        ({"text": {"delimeter": ";"}}, "text has no option 'delimeter'; did you mean 'delimiter'"),
        ({"text": {"delimiter": ";;"}}, "delimiter=';;' must be one"),
        ({"text": {"missing": "NA"}}, "text: missing='NA' must be a list, each item a string"),
        ({"text": {"header": 1}}, "text: header=1 must be true or false"),
        ({"columns": ["c"]}, "column 'c' needs a kind and a name"),
        ({"columns": [{"kind": "label"}]}, "needs a kind and a name"),
        ({"columns": [{"kind": "vector", "name": "v"}]}, "column 'v' needs size, a whole number"),
        ({"crosses": [{"buckets": 5}]}, "cross needs columns, a list, each item a string"),
        ({"columns": [{"kind": "label", "name": 5}]}, "column 5: name=5 must be a string"),
        ({"columns": [{"kind": "numeric", "name": "x", "transform": "ln"}]},
         "column 'x': transform='ln' must be one of 'log', 'log2"),
        ({"columns": [{"kind": "categorical", "name": "x", "min_count": True}]},
         "column 'x': min_count=True must be a whole number"),
        ({"columns": [{"kind": "categorical", "name": "x", "max_size": "9"}]},
         "max_size='9' must be a whole number or null"),
        ({"columns": [{"kind": "timestamp", "name": "x", "parts": ["second"]}]},
         r"parts=\['second'\] must be a list, each item one of 'hour', 'week"),
        ({"columns": [{"kind": "label", "name": "x", "values": ["a"]}]},
         "must be a list of 2: a string, a string"),
        ({"columns": [{"kind": "multivalued", "name": "x", "combiner": 3}]},
         "column 'x': combiner=3 must be a string"),
        ({"columns": [{"kind": "history", "name": "x", "max_length": None}]},
         "column 'x': max_length=None must be a whole number"),
        ({"columns": [{"kind": "history", "name": "x", "max_len": 3}]},
         "column 'x' has no option 'max_len'; did you mean 'max_length'"),
        ({"crosses": [{"columns": "a,b"}]}, "cross: columns='a,b' must be a list"),
        ({"crosses": ["a"]}, "cross: 'a' must be an object"),
        ({"crosses": None}, "crosses=None must be a list"),
        ({"columns": [{"kind": ["label"], "name": "y"}]}, "column kind .* is unknown"),
        ({"text": {"delimiter": "\n"}}, "ends lines or quotes cells"),
        ({"text": {"delimiter": '"'}}, "ends lines or quotes cells"),
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
    assert schema.labels_named(()) == (schema.label,) == (Label("y"),)
    assert schema.labels_named(("a", "y")) == (Label("y"), Label("a", rank=1))
    with pytest.raises(UserError, match=r"data\.labels: 'c' is not a label .* it has y, b, a"):
        schema.labels_named(("y", "c"))


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
        (("c", "e"), 10, "cross 'c x e': 'e' is not a .* column; use one of c, x, d, v, s$"),
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


@pytest.mark.parametrize("name", ["g", "past"])
def test_a_cross_of_several_values_is_refused(name):
    with pytest.raises(UserError, match=f"column '{name}' holds several values in a row"):
        dataclasses.replace(SEVERAL, crosses=(Cross(("item", name)),))
