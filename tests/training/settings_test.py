import pytest

from deepfm_jax import UserError
from deepfm_jax.training.settings import Experiment, PretrainedVectors
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
        ({"optimizer": {"learning_rate": 0.0}}, "optimizer.learning_rate=0.0 must be above 0"),
        ({"loop": {"monitor": "gauc"}}, "loop.monitor='gauc' is unknown"),
        ({"loop": {"epochs": 0}}, "loop.epochs=0 must be at least 1"),
        ({"loop": {"epochs": "3"}}, "loop.epochs='3' must be of type int"),
        ({"optimizer": {"clip_norm": None}}, "optimizer.clip_norm=None must be of type float"),
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
    ],
)
def test_a_wrong_key_or_value_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        experiment_settings.small("data", **changes)


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
