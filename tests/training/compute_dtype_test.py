"""Runs with ``compute_dtype="auto"``, which the processor resolves."""

import json

import pytest

from deepfm_jax import UserError
from deepfm_jax.evaluation.compare import compare
from deepfm_jax.layers import ComputeDtype
from deepfm_jax.serving import Predictor
from deepfm_jax.training import compute_dtype
from deepfm_jax.training.compute_dtype import with_compute_dtype
from deepfm_jax.training.loop import train
from tests import experiment_settings

MODEL = {"name": "dnn", "embed_dim": 4, "mlp_dims": [8], "dropout": 0.0}
AUTO = {**MODEL, "compute_dtype": "auto"}


@pytest.fixture
def processor(monkeypatch):
    """Sets the dtype to which ``auto`` resolves on this machine."""

    def prefers(name):
        choice = ComputeDtype(name, "a reason")
        monkeypatch.setattr(compute_dtype, "resolve_compute_dtype", lambda name: choice)

    prefers("bfloat16")
    return prefers


def small(prepared, model=AUTO, **changes):
    changes = {"loop": {"epochs": 1}, **changes}
    return experiment_settings.small(prepared, model=model, **changes)


def test_a_run_keeps_and_reports_what_it_chose(prepared, tmp_path, processor, capsys):
    train(small(prepared), tmp_path)
    assert "compute_dtype: bfloat16, since a reason" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["compute_dtype"] == {"name": "bfloat16", "reason": "a reason"}
    assert results["config"]["model"]["compute_dtype"] == "bfloat16"

    # On another machine it continues, and is scored, with the dtype with which it began.
    processor("float32")
    train(small(prepared, loop={"epochs": 2}), tmp_path)
    reported = f"compute_dtype: bfloat16, since the run in {tmp_path} began with it"
    assert reported in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["model"]["compute_dtype"] == (
        "bfloat16"
    )
    assert Predictor(tmp_path).experiment.model["compute_dtype"] == "bfloat16"
    with pytest.raises(UserError, match=r"model\.compute_dtype='bfloat16', but this one has"):
        train(small(prepared, {**MODEL, "compute_dtype": "float32"}), tmp_path)


def test_what_is_set_is_left_alone(prepared, tmp_path, processor):
    experiment = small(prepared, MODEL)
    assert with_compute_dtype(experiment, [tmp_path]) == (experiment, None)


def test_a_pretraining_stage_chooses_alike(prepared, tmp_path, processor):
    experiment = small(prepared, MODEL, pretraining={"model": AUTO})
    found, choice = with_compute_dtype(experiment, [tmp_path])
    assert choice == ("bfloat16", "a reason")
    assert found.pretraining.model["compute_dtype"] == "bfloat16"
    assert found.model == experiment.model


def test_all_seeds_of_a_comparison_have_one_choice(prepared, tmp_path, processor):
    experiments = {"dnn": small(prepared)}
    compare(experiments, (1,), tmp_path, baseline="dnn", resamples=100)
    processor("float32")
    results = compare(experiments, (2, 1), tmp_path, baseline="dnn", resamples=100)
    assert sorted(results["models"]["dnn"]["runs"]) == ["1", "2"]
    for seed in (1, 2):
        config = json.loads((tmp_path / "dnn" / str(seed) / "config.json").read_text())
        assert config["model"]["compute_dtype"] == "bfloat16"
