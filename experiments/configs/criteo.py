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
Expected: test AUC and logloss of DeepFM 0.7608 and 0.4833, FM 0.7614 and 0.4831, LR 0.7602 and
  0.4837 (means of seeds 2021, 190034, 992817), which do not separate on so few rows. LR, FM and
  DeepFM were tuned on valid; the others have settings to start from.
Time: under a minute on two CPU cores.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247), and the papers named in each model's file.
"""

from ml_collections import ConfigDict

from experiments.configs.plateau_recipe import plateau_config

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
    deepfm=dict(
        model=dict(mlp_dims=(64, 64), dropout=0.2, embed_dim=32),
        optimizer=dict(embedding_l2=1e-3, dense_l2=1e-3),
    ),
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
    return plateau_config("criteo", MODELS, model, embed_dim=16, batch_size=1024, epochs=30)
