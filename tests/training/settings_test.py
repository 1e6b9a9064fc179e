import dataclasses

import pytest

from deepfm_jax import UserError
from deepfm_jax.training.settings import (
    Experiment,
    LoopSettings,
    OptimizerSettings,
    PretrainedVectors,
)
from tests import experiment_settings


def test_json_carries_it_whole():
    experiment = experiment_settings.small("data")
    again = Experiment.from_mapping(experiment.to_dict())
    assert again.to_dict() == experiment.to_dict()
    assert again.loop == experiment.loop


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat .* did you mean optimizer.l"),
        ({"loop": {"epoch": 1}}, "config key loop.epoch does not exist; did you mean loop.epochs"),
        ({"optimiser": {}}, "config key optimiser does not exist; did you mean optimizer"),
        ({"optimizer": {"name": "adamw"}}, "optimizer.name='adamw' is unknown; use one of"),
        ({"optimizer": {"schedule": "step"}}, "optimizer.schedule='step' is unknown"),
        ({"loop": {"monitor": "gauc"}}, "loop.monitor='gauc' is unknown"),
        ({"loop": {"epochs": "3"}}, "loop.epochs='3' must be of type int"),
        ({"optimizer": {"clip_norm": None}}, "optimizer.clip_norm=None must be of type float"),
        ({"optimizer": {"first_order_l2": "x"}}, "first_order_l2='x' must be of type float . None"),
        ({"warm_start": 3}, "config key warm_start=3 must be of type str . None"),
        ({"model": "lr"}, "config key model='lr' must be of type"),
        ({"seed": True}, "config key seed=True must be of type int"),
        ({"model": {}}, "model.name is missing"),
        ({"pretrained_vectors": {"a": 1}}, "pretrained_vectors.a=1 must be a file or settings"),
        ({"pretrained_vectors": "v.parquet"}, "'v.parquet' must name files by column"),
        ({"pretrained_vectors": {"a": {}}}, "config key pretrained_vectors.a.file is missing"),
        (
            {"pretrained_vectors": {"a": {"file": "f", "scales": "as_is"}}},
            "pretrained_vectors.a.scales does not exist; did you mean pretrained_vectors.a.scale",
        ),
        (
            {"pretrained_vectors": {"a": {"file": "f", "scale": "unit"}}},
            "pretrained_vectors.a.scale='unit' is unknown; use one of .'unit_length', 'init_std'",
        ),
        (
            {"pretrained_vectors": {"a": "f"}, "warm_start": "runs/a"},
            "pretrained_vectors and warm_start both give the first weights",
        ),
        (
            {
                "optimizer": {"schedule": "plateau", "plateau_patience": 2},
                "loop": {"patience": 2},
            },
            r"optimizer\.plateau_patience=2 must be below loop\.patience=2",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        experiment_settings.small("data", **changes)


NAN, INFINITY = float("nan"), float("inf")
OUT_OF_RANGE = {
    "finite numbers above 0": {"optimizer.learning_rate": (0.0, -1.0, NAN, INFINITY)},
    "finite numbers of at least 0": {
        "optimizer.row_learning_rate": (-1.0, NAN, INFINITY),
        "optimizer.first_order_learning_rate": (-1.0, NAN),
        "optimizer.plateau_floor": (-1e-6, NAN),
        "optimizer.clip_norm": (-1.0, NAN, INFINITY),
        "optimizer.embedding_l2": (-1.0, NAN),
        "optimizer.embedding_l1": (-1.0, INFINITY),
        "optimizer.dense_l2": (-1.0, NAN),
        "loop.min_improvement": (-5.0, NAN, INFINITY),
    },
    "None and finite numbers of at least 0": {
        "optimizer.first_order_l2": (-1.0, NAN),
        "optimizer.first_order_l1": (-1.0, INFINITY),
    },
    "numbers above 0 and below 1": {"optimizer.plateau_factor": (-1.0, 0.0, 1.0, 2.0, NAN)},
    "whole numbers of at least 1": {
        "loop.batch_size": (0, -1),
        "loop.epochs": (0,),
        "loop.evaluations_per_epoch": (0,),
        "loop.checkpoint_steps": (0,),
        "loop.log_steps": (0,),
        "loop.eval_batch_size": (0,),
    },
    "whole numbers of at least 0": {
        "optimizer.warmup_steps": (-5,),
        "optimizer.plateau_patience": (-1,),
        "loop.patience": (-3,),
        "loop.streams": (-1,),
    },
}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (key, value, allowed)
        for allowed, settings in OUT_OF_RANGE.items()
        for key, values in settings.items()
        for value in values
    ],
)
def test_a_number_out_of_its_range_is_told_with_the_range(key, value, allowed):
    section, name = key.split(".")
    with pytest.raises(UserError, match=rf"^{key}={value}: allowed are {allowed}$"):
        experiment_settings.small("data", **{section: {name: value}})


def test_every_number_of_optimizer_and_loop_has_a_range():
    tried = {key for settings in OUT_OF_RANGE.values() for key in settings}
    for section, kind in (("optimizer", OptimizerSettings), ("loop", LoopSettings)):
        for field in dataclasses.fields(kind):
            is_number = field.type not in (str, bool)
            assert (f"{section}.{field.name}" in tried) == is_number, field.name


def test_numbers_at_the_ends_of_their_ranges_are_taken():
    least = {"clip_norm": 0.0, "first_order_l2": 0.0, "plateau_floor": 0.0, "warmup_steps": 0}
    experiment = experiment_settings.small(
        "data", optimizer=least, loop={"patience": 0, "min_improvement": 0.0}, seed=2**63 - 1
    )
    assert experiment.optimizer.first_order_l2 == 0.0


def test_settings_made_in_python_are_checked_as_well():
    experiment = experiment_settings.small("data")
    with pytest.raises(UserError, match=r"optimizer.clip_norm=-1\.0: allowed are"):
        dataclasses.replace(experiment, optimizer=OptimizerSettings(clip_norm=-1.0))
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match=f"seed={seed}: allowed are whole numbers from 0 to"):
            dataclasses.replace(experiment, seed=seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"clip_norm": -1.0}}, "pretraining.optimizer.clip_norm=-1.0: allowed are"),
        ({"optimizer": {"name": "lamb"}}, "pretraining.optimizer.name='lamb' is unknown"),
        ({"loop": {"epochs": 0}}, "pretraining.loop.epochs=0: allowed are"),
        ({"loop": {"streams": 3}}, "pretraining.loop.streams=3 must split pretraining.loop.batch"),
        ({"model": {}}, "pretraining.model.name is missing"),
    ],
)
def test_a_wrong_value_of_the_stage_before_is_named_with_its_place(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        experiment_settings.small("data", pretraining={"model": {"name": "fm"}, **changes})


def test_vectors_of_a_column_are_a_file_or_settings():
    given = {"item": "v.parquet", "user": {"file": "u.parquet", "scale": "as_is"}}
    experiment = experiment_settings.small("data", pretrained_vectors=given)
    assert experiment.pretrained_vectors == {
        "item": PretrainedVectors("v.parquet"),
        "user": PretrainedVectors("u.parquet", scale="as_is"),
    }
    again = Experiment.from_mapping(experiment.to_dict())
    assert again.pretrained_vectors == experiment.pretrained_vectors
    before = {key: value for key, value in experiment.to_dict().items() if "vectors" not in key}
    assert Experiment.from_mapping(before).pretrained_vectors == {}


def test_a_missing_section_is_named():
    with pytest.raises(UserError, match="no section 'data'"):
        Experiment.from_mapping({"model": {"name": "lr"}})
