import pytest

from deepfm_jax import (
    Categorical,
    History,
    Label,
    MultiValued,
    Numeric,
    Schema,
    Timestamp,
    UserError,
)
from deepfm_jax.dataclass_data import from_data
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.schema import Cross
from tests import click_logs


def test_options_reach_every_column():
    schema = click_logs.Criteo.SCHEMA
    changed = BuildOptions(min_count=7, numeric="quantile", buckets=9, separate_missing=True)
    for column, other in zip(schema.fields, changed.apply(schema).fields, strict=True):
        assert (other.min_count, other.separate_missing, other.name) == (7, True, column.name)
        if hasattr(other, "transform"):
            assert (other.transform, other.buckets) == ("quantile", 9)
    assert BuildOptions().apply(schema) == schema


def test_vocabulary_options_reach_only_columns_with_a_vocabulary():
    schema = Schema(
        (
            Label("y"),
            Categorical("c", min_count=3),
            Categorical("h", hash_buckets=5),
            Categorical("i", dtype="id", size=5),
            Numeric("x", transform="log2_floor"),
            Timestamp("t"),
            MultiValued("g", min_count=3),
            History("p", shares_with="c"),
        )
    )

    def fields(**options):
        return {field.name: field for field in BuildOptions(**options).apply(schema).fields}

    found = fields(min_count=7, max_size=9, separate_missing=True)
    assert found["c"] == Categorical("c", min_count=7, max_size=9, separate_missing=True)
    assert found["h"] == Categorical("h", hash_buckets=5, separate_missing=True)
    assert found["x"].min_count == 7
    assert found["t_hour"].separate_missing
    assert found["g"] == MultiValued("g", min_count=7, max_size=9, separate_missing=True)
    assert found["p"] == History("p", shares_with="c")
    found = fields(min_count=7, max_size=9, hash_buckets=100)
    assert found["c"] == Categorical("c", hash_buckets=100)
    assert found["h"] == Categorical("h", hash_buckets=100)
    assert found["i"] == Categorical("i", dtype="id", size=5)
    assert found["x"].min_count == 7
    assert found["g"] == MultiValued("g", hash_buckets=100)
    assert found["p"] == History("p", shares_with="c")
    found = fields(history_length=7)
    assert found["g"] == MultiValued("g", min_count=3)
    assert found["p"] == History("p", shares_with="c", max_length=7)


def test_crosses_of_a_config_file_are_lists_of_lists():
    options = from_data(BuildOptions, {"crosses": [["C1", "C2"]], "cross_buckets": 9}, "options")
    assert options == BuildOptions(crosses=(("C1", "C2"),), cross_buckets=9)
    schema = options.apply(click_logs.Criteo.SCHEMA)
    assert schema.crosses == (Cross(("C1", "C2"), 9),)
    for wrong in ("C1,C2", ["C1", "C2"], [["C1", "C2"], "C3"]):  # One level of lists too few.
        with pytest.raises(UserError, match=r"crosses=.* must be a list, each item a list"):
            from_data(BuildOptions, {"crosses": wrong}, "options")


def test_crosses_see_the_transform_that_the_options_choose():
    options = BuildOptions(numeric="log", crosses=(("C1", "I3"),))
    with pytest.raises(UserError, match="transform 'log' makes column 'I3' a value"):
        options.apply(click_logs.Criteo.SCHEMA)
