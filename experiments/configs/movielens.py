"""The lineage on MovieLens ratings as clicks, with starting settings; DeepFM by default.

  deepfm-jax prepare --dataset=movielens --source=MOVIELENS_FILES --out=data
  deepfm-jax train --config=movielens --workdir=runs/movielens
  deepfm-jax train --config=movielens:fm
  deepfm-jax compare --config=movielens --baseline=lr

Data: the files of the 100K, 1M or 20M release; a rating above 3 is a click. The columns are user
  and movie with their attributes, the movie's genres, hour and weekday, and the newest 50 movies
  that the user had rated above 3 before. Split 80/10/10 by time, so many users of valid and test
  are new.
Recipe: embed_dim 16, tower 64-64, dropout 0.2, batch 1024, Adam 1e-3, an L2 on the whole table and
  the tower's kernels at every step, gradient norm clipped at 10; the learning rate falls tenfold
  when validation AUC does not improve, and two such evaluations in a row end the run.
Expected: a first result to improve on: nothing here has been tuned. Published figures mostly use
  random splits and are not comparable. For 20M ratings start with a tower of 400-400-400, batch
  10,000 and less L2.
Time: a minute or two per run for the 100K release on two CPU cores.
Source: Harper and Konstan 2015, The MovieLens Datasets; Guo et al. 2017, DeepFM (arXiv 1703.04247).
"""

from ml_collections import ConfigDict

from .plateau_recipe import plateau_config

# Small and regularized, for the 100,000 rows of the smallest release.
_TOWER = dict(mlp_dims=(64, 64), dropout=0.2)
_HELD_BACK = dict(l2=dict(table=3e-4, tower=1e-3, interaction=1e-3))

# Each model's hyperparameters, and its own optimizer settings.
MODELS = dict(
    lr=dict(model=dict(), optimizer=dict(learning_rate=1e-2, l2=dict(table=1e-5))),
    fm=dict(model=dict(), optimizer=dict(l2=dict(table=1e-4))),
    dnn=dict(model=_TOWER, optimizer=_HELD_BACK),
    wide_deep=dict(model=_TOWER, optimizer=_HELD_BACK),
    deepfm=dict(model=_TOWER, optimizer=_HELD_BACK),
    dcn_v2=dict(model=dict(_TOWER, cross_layers=2, structure="parallel"), optimizer=_HELD_BACK),
)


def get_config(model: str = "deepfm") -> ConfigDict:
    """Returns the config of the model named after the file: ``movielens.py:fm``."""
    return plateau_config("movielens", MODELS, model, embed_dim=16, batch_size=1024, epochs=30)
