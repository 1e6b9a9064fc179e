r"""The lineage on the Criteo display advertising data, sized for a sample of some 100,000 rows.

  deepfm-jax prepare --dataset=criteo --source=CRITEO_FILES --out=data \
    --numeric=quantile --buckets=40 --separate_missing
  deepfm-jax train --config=criteo --workdir=runs/criteo
  deepfm-jax train --config=criteo:fm
  deepfm-jax compare --config=criteo --baseline=lr

Data: a sample of 95,997 / 13,714 / 13,714 rows of the Criteo challenge; 13 integer columns as 40
  quantile buckets and 26 hashed categories; values seen once share id 0, and missing values have
  their own. Without the three flags the integers are floor(ln(x)^2) buckets, as used by the
  challenge's winners, and each model's AUC is about 0.002 to 0.004 lower here.
Recipe: embed_dim 16, tower 64-64, dropout 0.2, batch 1024, Adam 1e-3, an L2 on the whole table and
  the tower's kernels at every step, gradient norm clipped at 10. So few rows are overfitted within
  an epoch or two; for the full 45 million, tune anew from a tower of 400-400-400 and batch 10,000.
Expected: test AUC and logloss of DeepFM 0.7639 and 0.4816, FM 0.7637 and 0.4821, LR 0.7624 and
  0.4826 (means of seeds 2021, 190034, 992817); README has the others, and which models separate.
Settings: the encoding and each model's L2 (3e-4 or 1e-3 for those with a tower) were chosen on
  valid with one seed, the L2 on floor(ln(x)^2) buckets. DeepFM was tuned more than the others.
Time: under a minute per run on two CPU cores, a few minutes for xDeepFM.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247), and the papers named in each model's file.
"""

from ml_collections import ConfigDict

from .plateau_recipe import plateau_config

# Small and regularized; otherwise the tower memorizes the training rows within an epoch.
_TOWER = dict(mlp_dims=(64, 64), dropout=0.2)
_MORE, _LESS = (dict(l2=dict(table=l2, tower=1e-3, interaction=1e-3)) for l2 in (1e-3, 3e-4))

# Each model's hyperparameters, and its own optimizer settings.
MODELS = dict(
    lr=dict(model=dict(), optimizer=dict(l2=dict(table=1e-4))),
    fm=dict(model=dict(), optimizer=dict(l2=dict(table=1e-3))),
    dnn=dict(model=_TOWER, optimizer=_LESS),
    fnn=dict(model=dict(_TOWER, activation="relu"), optimizer=_LESS),
    ipnn=dict(model=dict(_TOWER, name="pnn", products=("inner",)), optimizer=_LESS),
    opnn=dict(model=dict(_TOWER, name="pnn", products=("outer",)), optimizer=_MORE),
    pnn_star=dict(model=dict(_TOWER, name="pnn", products=("inner", "outer")), optimizer=_MORE),
    wide_deep=dict(model=_TOWER, optimizer=_LESS),
    deepfm=dict(model=dict(_TOWER, embed_dim=32), optimizer=_MORE),
    # The paper's ablation "FM & DNN"; "LR & DNN" is wide_deep.
    deepfm_unshared=dict(model=dict(_TOWER, name="deepfm", shared=False), optimizer=_MORE),
    xdeepfm=dict(model=dict(_TOWER, cin_dims=(16, 16)), optimizer=_LESS),
    autoint_plus=dict(
        model=dict(_TOWER, name="autoint", attention_layers=2, heads=2, head_dim=16),
        optimizer=_LESS,
    ),
    dcn_v2=dict(model=dict(_TOWER, cross_layers=2, structure="parallel"), optimizer=_MORE),
    final_mlp=dict(
        model=dict(mlp_dims=(64,), second_mlp_dims=(64, 64), gate_dims=(64,), heads=2, dropout=0.2),
        optimizer=_LESS,
    ),
)


def get_config(model: str = "deepfm") -> ConfigDict:
    """Returns the config of the model named after the file: ``criteo.py:fm``."""
    return plateau_config("criteo", MODELS, model, embed_dim=16, batch_size=1024, epochs=30)
