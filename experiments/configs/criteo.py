"""The lineage on the Criteo display advertising data, sized for a sample of some 100,000 rows.

  python -m experiments.prepare --dataset=criteo --source=CRITEO_FILES --out=data
  python -m experiments.train --config=experiments/configs/criteo.py --workdir=runs/criteo
  python -m experiments.train --config=experiments/configs/criteo.py:fm
  python -m experiments.compare --config=experiments/configs/criteo.py

Data: a sample of 95,997 / 13,714 / 13,714 rows of the Criteo challenge; 13 integer columns as
  floor(ln(x)^2) buckets and 26 hashed categories, values seen once sharing id 0.
Recipe: embed_dim 16, tower 400-400-400, dropout 0.2, batch 1024, Adam 1e-3, an L2 on the whole
  table at every step, gradient norm clipped at 10. So few rows are overfitted within an epoch or
  two; with the full 45 million, tune anew from batch_size 10,000.
Time: under a minute on two CPU cores.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247), and the papers named in each model's file.
"""

from ml_collections import ConfigDict

_TOWER = dict(mlp_dims=(400, 400, 400), dropout=0.2)

# Each model's hyperparameters, and the settings of the optimizer that are its own.
MODELS = dict(
    lr=dict(model=dict(), optimizer=dict(embedding_l2=1e-4)),
    fm=dict(model=dict(), optimizer=dict(embedding_l2=1e-3)),
    dnn=dict(model=_TOWER, optimizer=dict(embedding_l2=1e-4)),
    fnn=dict(model=dict(_TOWER, activation="relu"), optimizer=dict(embedding_l2=1e-4)),
    ipnn=dict(
        model=dict(_TOWER, name="pnn", products=("inner",)), optimizer=dict(embedding_l2=1e-4)
    ),
    opnn=dict(
        model=dict(_TOWER, name="pnn", products=("outer",)), optimizer=dict(embedding_l2=1e-4)
    ),
    pnn_star=dict(
        model=dict(_TOWER, name="pnn", products=("inner", "outer")),
        optimizer=dict(embedding_l2=1e-4),
    ),
    wide_deep=dict(model=_TOWER, optimizer=dict(embedding_l2=1e-4)),
    deepfm=dict(model=_TOWER, optimizer=dict(embedding_l2=1e-4)),
    # The paper's ablation "FM & DNN"; "LR & DNN" is wide_deep.
    deepfm_unshared=dict(
        model=dict(_TOWER, name="deepfm", shared=False), optimizer=dict(embedding_l2=1e-4)
    ),
    xdeepfm=dict(model=dict(_TOWER, cin_dims=(16, 16)), optimizer=dict(embedding_l2=1e-4)),
    autoint_plus=dict(
        model=dict(_TOWER, name="autoint", attention_layers=2, heads=2, head_dim=16),
        optimizer=dict(embedding_l2=1e-4),
    ),
    dcn_v2=dict(
        model=dict(_TOWER, cross_layers=2, structure="parallel"),
        optimizer=dict(embedding_l2=1e-4),
    ),
    final_mlp=dict(
        model=dict(
            mlp_dims=(400,), second_mlp_dims=(400, 400), gate_dims=(64,), heads=2, dropout=0.2
        ),
        optimizer=dict(embedding_l2=1e-4),
    ),
)


def get_config(model: str = "deepfm") -> ConfigDict:
    """The run as data, of the model named after the file: ``criteo.py:fm``."""
    if model not in MODELS:
        raise ValueError(f"model {model!r} has no settings here; use one of {sorted(MODELS)}")
    config = ConfigDict()
    config.seed = 2021
    config.data = dict(name="criteo", folder="data", options=dict())
    config.model = _model(model)
    config.optimizer = _optimizer(model)
    config.loop = _loop()
    if model == "fnn":
        config.pretraining = dict(model=_model("fm"), optimizer=_optimizer("fm"), loop=_loop())
    return config


def _model(model: str) -> dict:
    vectors = dict() if model == "lr" else dict(embed_dim=16, init_std=1e-4)
    return {"name": model, **vectors, **MODELS[model]["model"]}


def _optimizer(model: str) -> dict:
    shared = dict(
        name="adam",
        table="dense",
        learning_rate=1e-3,
        schedule="plateau",
        warmup_steps=0,
        plateau_factor=0.1,
        plateau_floor=1e-6,
        clip_norm=10.0,
        embedding_l2=0.0,
        dense_l2=0.0,
    )
    return {**shared, **MODELS[model]["optimizer"]}


def _loop() -> dict:
    return dict(
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
