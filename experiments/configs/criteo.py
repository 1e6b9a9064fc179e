"""DeepFM on the Criteo display advertising data, sized for a sample of some 100,000 rows.

  python -m experiments.prepare --dataset=criteo --source=CRITEO_FILES --out=data
  python -m experiments.train --config=experiments/configs/criteo.py --workdir=runs/criteo

Source: Guo et al. 2017, DeepFM (arXiv 1703.04247).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run as data."""
    config = ConfigDict()
    config.seed = 2021
    config.data = dict(name="criteo", folder="data", options=dict())
    config.model = dict(
        name="deepfm", embed_dim=16, mlp_dims=(400, 400, 400), dropout=0.2, init_std=1e-4
    )
    config.optimizer = dict(
        name="adam",
        learning_rate=1e-3,
        schedule="plateau",
        warmup_steps=0,
        plateau_factor=0.1,
        plateau_floor=1e-6,
        clip_norm=10.0,
        embedding_l2=1e-4,
        dense_l2=0.0,
    )
    config.loop = dict(
        batch_size=1024,
        epochs=30,
        monitor="auc",
        patience=2,
        min_improvement=1e-6,
        evaluations_per_epoch=1,
        checkpoint_steps=500,
        log_steps=10,
        eval_batch_size=8192,
    )
    return config
