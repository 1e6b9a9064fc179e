"""The kinds of columns together: their names, and that nobody asks for them by type."""

import ast
import dataclasses
import pathlib

import pytest

import deepfm_jax
from deepfm_jax import Schema
from deepfm_jax.columns import KINDS, Column, Field
from deepfm_jax.profiling.views import VIEWS

PACKAGE = pathlib.Path(deepfm_jax.__file__).parent
TYPES = {"Column", "Field", "Category", *(kind.__name__ for kind in KINDS.values())}
# Options without a default.
NEEDED = {"vector": {"size": 3}}


@pytest.fixture(params=sorted(KINDS))
def column(request):
    return KINDS[request.param]("x", **NEEDED.get(request.param, {}))


def test_a_kind_has_the_name_by_which_it_is_registered():
    names = {name: kind("x", **NEEDED.get(name, {})).kind for name, kind in KINDS.items()}
    assert names == {name: name for name in KINDS}


def test_the_name_of_a_column_is_its_first_option(column):
    assert next(each.name for each in dataclasses.fields(column)) == "name"
    assert isinstance(column, Column)


def test_what_a_report_shows_is_known(column):
    assert column.profile is None or column.profile in VIEWS


def test_fields_of_a_column_have_slots_or_numbers(column):
    for field in column.fields:
        assert isinstance(field, Field)
        assert len(field.slot_names) == field.slots
        assert (field.slots > 0) != (field.numbers > 0)


def test_every_kind_is_written_and_read(column):
    schema = Schema(
        (KINDS["label"]("y"), KINDS["categorical"]("c"), dataclasses.replace(column, name="x"))
    )
    assert Schema.from_dict(schema.to_dict()) == schema


def test_no_code_asks_which_kind_a_column_is():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                assert not asked & TYPES, f"{path}, line {node.lineno}: ask the column instead"
