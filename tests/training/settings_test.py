import dataclasses
import re

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
        (
            {"optimizer": {"learning_rat": 1}},
            "config.optimizer has no option 'learning_rat'; did you mean 'learning_rate'",
        ),
        ({"loop": {"epoch": 1}}, "config.loop has no option 'epoch'; did you mean 'epochs'"),
        ({"optimiser": {}}, "config has no option 'optimiser'; did you mean 'optimizer'"),
        (
            {"optimizer": {"schedule": "step"}},
            "config.optimizer: schedule='step' must be one of 'constant', 'warmup",
        ),
        (
            {"loop": {"monitor": "gauc"}},
            "config.loop: monitor='gauc' must be one of 'auc', 'logloss'",
        ),
        ({"loop": {"epochs": "3"}}, "config.loop: epochs='3' must be a whole number"),
        (
            {"optimizer": {"clip_norm": None}},
            "config.optimizer: clip_norm=None must be a finite number",
        ),
        (
            {"optimizer": {"l2": {"first_order": "x"}}},
            "config.optimizer.l2: first_order='x' must be a finite number of at least 0 or null",
        ),
        ({"warm_start": 3}, "config: warm_start=3 must be a string or null"),
        ({"model": "lr"}, "config: model='lr' must be an object"),
        ({"seed": True}, "config: seed=True must be a whole number"),
        ({"model": {}}, "model.name is missing"),
        (
            {"pretrained_vectors": {"a": 1}},
            "config: pretrained_vectors=.*1.* must be an object, each value an object or a string",
        ),
        ({"pretrained_vectors": "v.parquet"}, "pretrained_vectors='v.parquet' must be an object"),
        ({"pretrained_vectors": {"a": {}}}, "config.pretrained_vectors.a needs file, a string"),
        (
            {"pretrained_vectors": {"a": {"file": "f", "scales": "as_is"}}},
            "config.pretrained_vectors.a has no option 'scales'; did you mean 'scale'",
        ),
        (
            {"pretrained_vectors": {"a": {"file": "f", "scale": "unit"}}},
            "config.pretrained_vectors.a: scale='unit' must be one of 'unit_length', 'init_std'",
        ),
        (
            {"pretrained_vectors": {"a": "f"}, "warm_start": "runs/a"},
            "warm_start and pretrained_vectors both set the first weights",
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
    "a finite number above 0": {"optimizer.learning_rate": (0.0, -1.0, NAN, INFINITY)},
    "a finite number of at least 0": {
        "optimizer.rows.learning_rate": (-1.0, NAN, INFINITY),
        "optimizer.first_order.learning_rate": (-1.0, NAN),
        "optimizer.plateau_floor": (-1e-6, NAN),
        "optimizer.clip_norm": (-1.0, NAN, INFINITY),
        "optimizer.l2.table": (-1.0, NAN),
        "optimizer.l1.table": (-1.0, INFINITY),
        "optimizer.l2.tower": (-1.0, NAN),
        "optimizer.l1.tower": (-1.0,),
        "optimizer.l2.interaction": (-1.0, NAN),
        "optimizer.l1.interaction": (-1.0,),
        "loop.min_improvement": (-5.0, NAN, INFINITY),
    },
    "a finite number of at least 0 or null": {
        "optimizer.l2.first_order": (-1.0, NAN),
        "optimizer.l1.first_order": (-1.0, INFINITY),
    },
    "a finite number above 0 and below 1": {"optimizer.plateau_factor": (-1.0, 0.0, 1.0, 2.0, NAN)},
    "a whole number of at least 1": {
        "loop.batch_size": (0, -1),
        "loop.epochs": (0,),
        "loop.evaluations_per_epoch": (0,),
        "loop.checkpoint_steps": (0,),
        "loop.log_steps": (0,),
        "loop.eval_batch_size": (0,),
    },
    "a whole number of at least 0": {
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
def test_a_number_out_of_its_range_is_reported_with_the_range(key, value, allowed):
    (section, *names), number = key.split("."), value
    for name in reversed(names):
        value = {name: value}
    place = re.escape(".".join(("config", section, *names[:-1])))
    message = rf"^{place}: {names[-1]}={number} must be {allowed}$"
    with pytest.raises(UserError, match=message):
        experiment_settings.small("data", **{section: value})


def test_every_number_of_optimizer_and_loop_has_a_range():
    tried = {key for settings in OUT_OF_RANGE.values() for key in settings}

    def numbers(settings, path):
        for field in dataclasses.fields(settings):
            value, place = getattr(settings, field.name), f"{path}.{field.name}"
            if dataclasses.is_dataclass(value):
                yield from numbers(value, place)
            elif not isinstance(value, str | bool | dict):
                yield place

    found = {*numbers(OptimizerSettings(), "optimizer"), *numbers(LoopSettings(), "loop")}
    assert tried == found


def test_numbers_at_the_ends_of_their_ranges_are_taken():
    least = {"clip_norm": 0.0, "plateau_floor": 0.0, "warmup_steps": 0, "l2": {"first_order": 0.0}}
    experiment = experiment_settings.small(
        "data", optimizer=least, loop={"patience": 0, "min_improvement": 0.0}, seed=2**63 - 1
    )
    assert experiment.optimizer.l2.first_order == 0.0


def test_settings_made_in_python_are_checked_as_well():
    experiment = experiment_settings.small("data")
    with pytest.raises(UserError, match=r"^optimizer.clip_norm=-1\.0 must be a finite"):
        dataclasses.replace(experiment, optimizer=OptimizerSettings(clip_norm=-1.0))
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match=f"^seed={seed} must be a whole number from 0 to"):
            dataclasses.replace(experiment, seed=seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": {"clip_norm": -1.0}},
            "config.pretraining.optimizer: clip_norm=-1.0 must be",
        ),
        (
            {"optimizer": {"table": "both"}},
            "config.pretraining.optimizer: table='both' must be one of",
        ),
        ({"loop": {"epochs": 0}}, "config.pretraining.loop: epochs=0 must be"),
        ({"loop": {"streams": 3}}, "pretraining.loop.streams=3 must split pretraining.loop.batch"),
        ({"model": {}}, "pretraining.model.name is missing"),
    ],
)
def test_a_wrong_value_of_the_pretraining_stage_is_named_with_its_place(changes, message):
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
    with pytest.raises(UserError, match="config needs data, an object"):
        Experiment.from_mapping({"model": {"name": "lr"}})
