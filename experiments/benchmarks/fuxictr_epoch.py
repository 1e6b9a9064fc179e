"""Times FuxiCTR's epochs on Frappe: ``python fuxictr_epoch.py --file=NPZ``; see epoch.py.

Runs under the peers' own Python. DeepFM is composed of FuxiCTR's layers, with the hyperparameters
of its published recipe for Frappe; its NpzDataLoader reads, its train_epoch trains. Prints one line
of JSON (workload.report), in which a step is an epoch; the first is left out.
"""
# Runs in the peers' environment, not in ours.
# pyright: reportMissingImports=false

import argparse
import contextlib
import functools
import sys
import time

import numpy as np
import torch
from torch import nn
from workload import report

_EMBED_DIM, _MLP_DIMS, _BATCH = 10, [400, 400, 400], 4096


def main() -> None:
    """Trains and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", required=True, help="field_0.., label and field_dims")
    parser.add_argument("--epochs", default=5, type=int, help="epochs timed")
    flags = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        seconds = _measure(flags.file, flags.epochs)
    report(seconds[1:], system="fuxictr_epoch", torch=torch.__version__)


def _measure(file: str, epochs: int) -> list[float]:
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    field_dims = np.load(file)["field_dims"].tolist()
    feature_map = FeatureMap("frappe", "")
    for field, rows in enumerate(field_dims):
        feature_map.features[f"field_{field}"] = {"type": "categorical", "vocab_size": rows}
    feature_map.num_fields = len(field_dims)
    feature_map.labels = ["label"]
    feature_map.set_column_index()

    class DeepFM(BaseModel):
        def __init__(self):
            super().__init__(
                feature_map,
                gpu=-1,
                verbose=0,
                model_root="",
                metrics=[],
                embedding_regularizer=0.05,
            )
            initializer = functools.partial(nn.init.normal_, std=1e-4)
            self.embedding = FeatureEmbedding(feature_map, _EMBED_DIM, initializer)
            self.fm = FactorizationMachine(feature_map)
            self.tower = MLP_Block(
                len(field_dims) * _EMBED_DIM,
                hidden_units=_MLP_DIMS,
                output_dim=1,
                dropout_rates=0.2,
                batch_norm=True,
            )

        def forward(self, inputs):
            columns = self.get_inputs(inputs)
            e = self.embedding(columns)
            logit = self.fm(columns, e) + self.tower(e.flatten(1))
            return {"y_pred": self.output_activation(logit)}

    reader, _ = RankDataLoader(
        feature_map, stage="train", train_data=file, batch_size=_BATCH, shuffle=True
    )
    model = DeepFM()
    model.compile("adam", "binary_crossentropy", 1e-3)
    model.reset_parameters()
    model.model_to_device()
    # What fit() sets before its first epoch; no evaluation becomes due.
    model._max_gradient_norm, model._total_steps, model._stop_training = 10.0, 0, False
    model._eval_steps = sys.maxsize
    seconds = []
    for _ in range(1 + epochs):
        start = time.perf_counter()
        model.train_epoch(reader)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
