"""DeepFM on the Criteo display advertising data, sized for a sample of some 100,000 rows.

  python -m experiments.prepare --dataset=criteo --source=CRITEO_FILES --out=data
  python -m experiments.train --config=experiments/configs/criteo.py --workdir=runs/criteo

Data: a sample of 95,997 / 13,714 / 13,714 rows of the Criteo challenge; 13 integer columns as
  floor(ln(x)^2) buckets and 26 hashed categories, values seen once sharing id 0.
Recipe: embed_dim 16, tower 400-400-400, dropout 0.2, batch 1024, Adam 1e-3, L2 of 1e-4 on the whole
  table (chosen on valid, with the learning rate, among nine settings), gradient norm clipped at 10.
Models: ``criteo.py:lr`` and ``criteo.py:fm`` with an L2 of their own, chosen on valid likewise.
Expected: test AUC and logloss of DeepFM 0.7589 and 0.4845, FM 0.7607 and 0.4837, LR 0.7602 and
  0.4837 (means of seeds 2021, 190034, 992817). So few rows are overfitted within an epoch or two;
  with the full 45 million, tune anew from batch_size 10,000.
Time: under a minute on two CPU cores.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247).
"""

from ml_collections import ConfigDict

_MODELS = dict(
    lr=dict(),
    fm=dict(embed_dim=16, init_std=1e-4),
    deepfm=dict(embed_dim=16, mlp_dims=(400, 400, 400), dropout=0.2, init_std=1e-4),
)
_EMBEDDING_L2 = dict(lr=1e-4, fm=1e-3, deepfm=1e-4)


def get_config(model: str = "deepfm") -> ConfigDict:
    """The run as data, of the model named after the file: ``criteo.py:fm``."""
    if model not in _MODELS:
        raise ValueError(f"model {model!r} has no settings here; use one of {sorted(_MODELS)}")
    config = ConfigDict()
    config.seed = 2021
    config.data = dict(name="criteo", folder="data", options=dict())
    config.model = dict(name=model, **_MODELS[model])
    config.optimizer = dict(
        name="adam",
        table="dense",
        learning_rate=1e-3,
        schedule="plateau",
        warmup_steps=0,
        plateau_factor=0.1,
        plateau_floor=1e-6,
        clip_norm=10.0,
        embedding_l2=_EMBEDDING_L2[model],
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
