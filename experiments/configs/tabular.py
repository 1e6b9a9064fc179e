"""The lineage on a table of your own, with starting settings.

  deepfm-jax prepare --infer_schema --source=clicks.csv --schema=schema.json
  deepfm-jax prepare --dataset=tabular --source=clicks.csv --schema=schema.json
  deepfm-jax train --config=tabular --workdir=runs/clicks
  deepfm-jax compare --config=tabular --workdir=runs/models

Data: a table as described by its schema, split into train, valid and test;
  ``--config.data.folder`` is prepare's ``--out``, and ``--config.data.name=avazu`` or another name
  selects that data set.
Recipe: embed_dim 16, tower 128-64, dropout 0.2, batch 1024, Adam 5e-3, an L2 on the whole table and
  the tower's kernels at every step, gradient norm clipped at 10; the learning rate falls tenfold
  when validation AUC does not improve, and two such evaluations in a row end the run.
Expected: a first result to improve on. Tune on valid, in this order: the learning rate and the L2
  (more of it for fewer rows), prepare's ``--min_count``, the tower, the batch (larger for millions
  of rows). Compare with LR and FM: if they win, there are too few rows for the tower as it is set.
Time: under a minute for 40,000 rows of 8 columns on two CPU cores.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247); the recipe of reczoo/BARS.
"""

from ml_collections import ConfigDict

from .plateau_recipe import plateau_config

_TOWER = dict(mlp_dims=(128, 64), dropout=0.2)
_HELD_BACK = dict(learning_rate=5e-3, l2=dict(table=1e-3, tower=1e-3, interaction=1e-3))

# Each model's hyperparameters, and its own optimizer settings.
MODELS = dict(
    lr=dict(model=dict(), optimizer=dict(learning_rate=1e-2, l2=dict(table=1e-5))),
    fm=dict(model=dict(), optimizer=dict(l2=dict(table=1e-4))),
    deepfm=dict(model=_TOWER, optimizer=_HELD_BACK),
    dcn_v2=dict(model=dict(_TOWER, cross_layers=2, structure="parallel"), optimizer=_HELD_BACK),
)


def get_config(model: str = "deepfm") -> ConfigDict:
    """Returns the config of the model named after the file: ``tabular.py:fm``."""
    return plateau_config("tabular", MODELS, model, embed_dim=16, batch_size=1024, epochs=30)
