import pytest

from deepfm_jax import UserError
from deepfm_jax.training.settings import Experiment
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
    ],
)
def test_a_wrong_key_or_value_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        experiment_settings.small("data", **changes)


def test_a_missing_section_is_named():
    with pytest.raises(UserError, match="no section 'data'"):
        Experiment.from_mapping({"model": {"name": "lr"}})
