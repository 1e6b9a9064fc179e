"""DeepFM on Frappe by the recipe of the BARS benchmark (Frappe_x1).

  python -m experiments.prepare --dataset=frappe --source=FRAPPE_FILES --out=data
  python -m experiments.train --config=experiments/configs/frappe.py --workdir=runs/frappe

Data: 202,027 / 57,722 / 28,860 rows, 10 categorical columns of integer ids.
Recipe: embed_dim 10, tower 400-400-400 with batch norm, dropout 0.2, batch 4096, Adam 1e-3, L2 of
  0.1 on the whole embedding table at every step, gradient norm clipped at 10; the learning rate
  falls tenfold when validation AUC does not improve, and two such evaluations in a row end the run.
Deviation: BARS has an L2 of 0.05. Validation AUC is the same with 0.1, validation logloss is better
  (0.1471 for 0.1489), and seeds agree more.
Models: ``frappe.py:lr`` and ``frappe.py:fm`` with a learning rate and an L2 of their own, chosen on
  valid.
Expected: test AUC and logloss of DeepFM 0.9845 and 0.151, FM 0.9720 and 0.207, LR 0.9369 and 0.294
  (means of seeds 2021, 190034, 992817); BARS has 0.9839 and 0.1495 for DeepFM, the mean of five.
Time: a few minutes on two CPU cores.
Source: reczoo/BARS, DeepFM on Frappe_x1; Guo et al. 2017 (arXiv 1703.04247).
"""

from ml_collections import ConfigDict

_MODELS = dict(
    lr=dict(),
    fm=dict(embed_dim=10, init_std=1e-4),
    deepfm=dict(
        embed_dim=10, mlp_dims=(400, 400, 400), dropout=0.2, batch_norm=True, init_std=1e-4
    ),
)
_EMBEDDING_L2 = dict(lr=1e-5, fm=0.0, deepfm=0.1)
_LEARNING_RATE = dict(lr=1e-2, fm=1e-2, deepfm=1e-3)


def get_config(model: str = "deepfm") -> ConfigDict:
    """The run as data, of the model named after the file: ``frappe.py:fm``."""
    if model not in _MODELS:
        raise ValueError(f"model {model!r} has no settings here; use one of {sorted(_MODELS)}")
    config = ConfigDict()
    config.seed = 2021
    config.data = dict(name="frappe", folder="data", options=dict())
    config.model = dict(name=model, **_MODELS[model])
    config.optimizer = dict(
        name="adam",
        table="dense",
        learning_rate=_LEARNING_RATE[model],
        schedule="plateau",
        warmup_steps=0,
        plateau_factor=0.1,
        plateau_floor=1e-6,
        clip_norm=10.0,
        embedding_l2=_EMBEDDING_L2[model],
        dense_l2=0.0,
    )
    config.loop = dict(
        batch_size=4096,
        epochs=100,
        monitor="auc",
        patience=2,
        min_improvement=1e-6,
        evaluations_per_epoch=1,
        checkpoint_steps=500,
        log_steps=10,
        eval_batch_size=8192,
    )
    return config
