r"""The lineage on Criteo's terabyte of click logs, 4.4 billion rows; a starting point, not tuned.

  deepfm-jax prepare --dataset=criteo_1tb --source=DAYS --out=data \
    --beam_runner=FlinkRunner --beam_options=flink_master=HOST:8081
  deepfm-jax train --config=criteo_1tb --multihost --workdir=RUNS
  deepfm-jax train --config=criteo_1tb:dcn_v2 ...

Data: ``day_0`` to ``day_23``, of which the last is halved into valid and test. Encoded, it takes
  160 bytes per row, 0.7 TB. For experiments, ``--hash_buckets=1000000`` makes a table of 26 million
  rows.
Recipe: embed_dim 16, tower 512-256, batch 65,536, one epoch, as more overfits (Zhang et al. 2022);
  row-wise Adagrad on the rows that a batch reads, Adam with a warm-up for the tower. The table has
  206 million rows, 14 GB with its first-order weights and 2 GB of Adagrad's state, so it needs a
  slice or several GPUs; the rows are striped over the devices.
Expected: not measured; no run of this size has been made, and the learning rates are guesses. Try
  them first on truncated day files.
Time: not measured.
Source: Guo et al. 2017, DeepFM (arXiv 1703.04247); Wang et al. 2021, DCN V2 (arXiv 2008.13535);
  Zhang et al. 2022, the one-epoch phenomenon (arXiv 2209.06053).
"""

from ml_collections import ConfigDict

from ..recipe import complete

_TOWER = dict(mlp_dims=(512, 256))

# Each model's hyperparameters.
MODELS = dict(
    lr=dict(),
    fm=dict(embed_dim=16, init_std=0.01),
    deepfm=dict(embed_dim=16, init_std=0.01, **_TOWER),
    dcn_v2=dict(embed_dim=16, init_std=0.01, cross_layers=3, structure="stacked", **_TOWER),
)


def get_config(model: str = "deepfm") -> ConfigDict:
    """Returns the config of the model named after the file: ``criteo_1tb.py:fm``."""
    if model not in MODELS:
        raise ValueError(f"model {model!r} has no settings here; use one of {sorted(MODELS)}")
    return complete(
        data=dict(name="criteo_1tb"),
        model=dict(name=model, **MODELS[model]),
        optimizer=dict(
            table="sparse",
            rows=dict(name="rowwise_adagrad", learning_rate=2e-2),
            learning_rate=1e-3,
            schedule="warmup_cosine",
            warmup_steps=2000,
        ),
        # Twenty evaluations on valid in the single epoch; the best weights are kept.
        loop=dict(
            batch_size=65_536,
            epochs=1,
            patience=0,
            evaluations_per_epoch=20,
            checkpoint_steps=2000,
            eval_batch_size=131_072,
        ),
    )
