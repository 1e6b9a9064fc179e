"""An invalid hyperparameter raises one message before any training."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Literal, get_args, get_origin

import flax.linen as nn
import jax
import numpy as np
import pytest

from deepfm_jax import MODELS, DeepFM, Feature, UserError, build_model
from deepfm_jax.annotations import Constraint
from deepfm_jax.hyperparameters import check_hyperparameters

DIMS = (4, 3, 6, 2)
# Values that are invalid for every hyperparameter of a type.
WRONG = {
    int: (-1, 2.0, "4", True, None, float("nan")),
    float: (-1, "0.2", True, None, float("nan"), float("inf"), (0.1,)),
    bool: ("False", "no", 0, None),
    str: ("float8", "", 1, None),
}
ZERO_MAY_BE = {"cross_layers", "rank", "context", "second_context"}

pytestmark = pytest.mark.usefixtures("unchecked_types")


def bare(annotation):
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def kind_of(annotation):
    return str if get_origin(annotation) is Literal else bare(annotation)


def wrong_values(key, annotation):
    annotation = bare(annotation)
    if get_origin(annotation) is Sequence:
        (item,) = map(kind_of, get_args(annotation))
        right = "inner" if item is str else 2
        lists = ((right, value) for value in WRONG[item])
        zero = () if item is str or key in ZERO_MAY_BE else ((0,), (2, 0))
        return (*lists, *zero, right, str(right), "2,2", None, np.array([2]), {2})
    kind = kind_of(annotation)
    return (*WRONG[kind], (2,), *((0,) if kind is int and key not in ZERO_MAY_BE else ()))


def hyperparameters():
    return [
        (name, field.name, field.type)
        for name, kind in MODELS.items()
        for field in dataclasses.fields(kind)
        if field.name not in ("field_dims", "parent", "name")
    ]


@pytest.mark.parametrize(
    ("name", "key", "annotation"),
    [pytest.param(*each, id=".".join(each[:2])) for each in hyperparameters()],
)
def test_an_invalid_value_is_reported_with_its_name(name, key, annotation):
    for value in wrong_values(key, annotation):
        message = f"^{re.escape(f'model.{key}={value!r}')} must be "
        with pytest.raises(UserError, match=message):
            build_model(name, DIMS, {key: value})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fm", {"embed_dim": 0}, "model.embed_dim=0 must be a whole number of at least 1"),
        ("fm", {"init_std": 0.0}, "model.init_std=0.0 must be a finite number above 0"),
        ("dnn", {"dropout": 1.0}, "model.dropout=1.0 must be a finite number of at least 0 and"),
        ("dnn", {"mlp_dims": [8, 0]}, r"model.mlp_dims=\[8, 0\] must be a list, each item a whole"),
        ("dnn", {"batch_norm": "False"}, "model.batch_norm='False' must be true or false"),
        ("dnn", {"compute_dtype": "float16"}, "float16' must be one of 'float32', 'bfloat16'"),
        ("fnn", {"activation": "rlu"}, "model.activation='rlu' must be one of 'tanh', 'relu'"),
        ("pnn", {"products": "inner"}, "model.products='inner' must be a list of at least one"),
        ("pnn", {"products": ()}, r"model.products=\(\) must be a list of at least one item"),
        ("pnn", {"products": ["inner", "inner"]}, "without duplicates, each item one of 'in"),
        ("final_mlp", {"context": (0, 0)}, r"model.context=\(0, 0\) must be a list without"),
        ("dcn_v2", {"structure": "serial"}, "model.structure='serial' must be one of 'stacked'"),
        # Without effect, but checked nevertheless.
        ("autoint", {"mlp_dims": (), "compute_dtype": "float8"}, "model.compute_dtype='float8'"),
        ("dcn_v2", {"rank": 0, "experts": -5}, "model.experts=-5"),
        ("final_mlp", {"gated": False, "gate_dims": (-3,)}, r"model.gate_dims=\(-3,\)"),
        # Hyperparameters that conflict.
        ("xdeepfm", {"cin_dims": (5, 4)}, r"model.cin_dims\[0\]=5 is odd"),
        ("final_mlp", {"context": (4,)}, r"model.context: there is no field 4; .* 0 to 3"),
        ("final_mlp", {"shared_context": False}, "model.shared_context=False doubles the table"),
        ("final_mlp", {"second_mlp_dims": (5,), "heads": 2}, r"model.heads=2 .*second_.* is 5"),
        ("final_mlp", {"mlp_dims": (), "heads": 3}, r"model.heads=3 .*\.mlp_dims, which is 64"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_before_the_model_is_used(name, changes, message):
    with pytest.raises(UserError, match=message):
        build_model(name, DIMS, changes)


def test_a_name_that_is_not_a_string_is_reported():
    with pytest.raises(UserError, match=r"model.name=\['fm'\] is unknown"):
        build_model(["fm"], DIMS, {})


def test_wide_deep_needs_a_field_that_is_not_a_cross():
    crosses = [Feature(rows, crossed=True) for rows in DIMS]
    with pytest.raises(UserError, match="wide_deep: every field is a cross"):
        build_model("wide_deep", crosses, {})
    build_model("wide_deep", [DIMS[0], *crosses[1:]], {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deepfm", {"mlp_dims": [], "dropout": 0, "init_std": 1, "shared": np.bool_(False)}),
        ("deepfm", {"embed_dim": np.int32(3), "mlp_dims": [np.int64(4), 5]}),
        ("dnn", {"dropout": np.float32(0.25), "init_std": 1e-4}),
        ("dcn_v2", {"rank": 0, "cross_layers": 0}),
        ("xdeepfm", {"cin_dims": [5, 4], "split_half": False, "mlp_dims": ()}),
        ("xdeepfm", {"cin_dims": []}),
        ("final_mlp", {"context": [0, 3], "second_context": [0], "gate_dims": []}),
    ],
)
def test_json_and_numpy_forms_of_valid_values_are_accepted(name, options):
    model = build_model(name, list(DIMS), {"mlp_dims": [4], **options})
    jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, len(DIMS)), np.int32))


@pytest.mark.parametrize("name", MODELS)
def test_the_module_itself_checks_too(name):
    model = MODELS[name](DIMS, table_dtype="float8")
    with pytest.raises(UserError, match=r"model\.table_dtype='float8' must be one of"):
        model.init(jax.random.key(0), np.zeros((1, len(DIMS)), np.int32))


@pytest.mark.parametrize(
    ("field_dims", "message"),
    [((4, 3.2), r"field_dims\[1\]=3.2 must be"), ((), "field_dims must have")],
)
def test_impossible_fields_are_reported_when_the_model_is_built(field_dims, message):
    with pytest.raises(UserError, match=message):
        build_model("fm", field_dims, {})
    with pytest.raises(UserError, match=message):
        DeepFM(field_dims).init(jax.random.key(0), np.zeros((1, 2), np.int32))


class _New(nn.Module):
    """A model from outside, with a range of its own."""

    field_dims: Sequence[int] = DIMS
    towers: Annotated[int, Constraint(" below 9", lambda n: n < 9)] = 2
    slope: float = -0.5
    kind: Literal["a", "b"] = "a"
    shares: Sequence[float] = ()
    limit: int | None = None


def test_a_new_hyperparameter_is_checked_by_its_annotation():
    check_hyperparameters(_New())
    check_hyperparameters(_New(towers=-2, shares=[0.5, 1], limit=3))
    for wrong in (
        {"towers": 2.5},
        {"towers": 9},
        {"slope": "1"},
        {"kind": "c"},
        {"shares": (0.5, None)},
    ):
        with pytest.raises(UserError, match=f"model.{next(iter(wrong))}="):
            check_hyperparameters(_New(**wrong))
