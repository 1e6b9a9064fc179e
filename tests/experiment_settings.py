"""A small experiment on the prepared data of the fixtures."""

from deepfm_jax.training.settings import Experiment


def small(folder, **changes):
    """DeepFM on ``frappe``; ``changes`` replace keys: ``loop={"epochs": 1}``."""
    config = {
        "data": {"name": "frappe", "folder": str(folder), "options": {}},
        "model": {"name": "deepfm", "embed_dim": 4, "mlp_dims": [16, 8], "dropout": 0.1},
        "optimizer": {"learning_rate": 5e-3},
        "loop": {
            "batch_size": 512,
            "epochs": 2,
            "patience": 0,
            "checkpoint_steps": 7,
            "log_steps": 5,
            "eval_batch_size": 1024,
        },
        "seed": 1,
    }
    for section, values in changes.items():
        if isinstance(values, dict) and section != "model":
            config[section] = {**config.get(section, {}), **values}
        else:
            config[section] = values
    return Experiment.from_mapping(config)
