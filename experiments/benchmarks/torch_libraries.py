"""DeepFM in PyTorch libraries, ready to be timed, and all systems by name.

Systems and axes are as in torch_models.py. Each system imports its own library, so that one can be
timed when another is missing.
"""
# Runs in the peers' environment; ours has neither fbgemm_gpu nor fuxictr nor deepctr_torch.
# pyright: reportMissingImports=false

import functools
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch_models import (
    INIT_STD,
    LEARNING_RATE,
    Head,
    Measure,
    Run,
    Times,
    fused_adam,
    torch_adam,
    torch_compile,
    torch_scoring,
    torch_sparse_adam,
    torch_tower,
    training,
)
from workload import EMBED_DIM, FIELDS, MLP_DIMS

# FBGEMM needs rows of a multiple of 4: the embedding, the first-order weight, 3 unused numbers.
_PACKED_DIM = EMBED_DIM + 4


def _deepctr(run: Run) -> Measure:
    """DeepCTR-Torch's DeepFM with its unchanged compile() and fit().

    ``fit`` owns the loop, so hooks read the clock in it. ``step_seconds`` runs from one update to
    the next, and includes the DataLoader that ``fit`` creates, which gathers a batch row by row in
    Python; ``step_seconds_without_loader`` starts with the forward pass. Autocast decorates the
    model's ``forward``, because around ``fit`` it would never see the weights change.
    """
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DeepFM as LibraryDeepFM

    # The import asks PyPI for a newer version in a thread, which must not disturb the timing.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=60)
    names = [f"field_{field}" for field in range(FIELDS)]
    features = [SparseFeat(name, run.field_rows, embedding_dim=EMBED_DIM) for name in names]
    device = "cuda:0" if run.device.type == "cuda" else "cpu"
    model = LibraryDeepFM(
        features, features, dnn_hidden_units=MLP_DIMS, l2_reg_linear=0, l2_reg_embedding=0,
        l2_reg_dnn=0, dnn_dropout=0, init_std=INIT_STD, device=device,
    )  # fmt: skip
    model.compile("adam", "binary_crossentropy", metrics=[])
    model.forward = run.autocast()(model.forward)
    ids = np.concatenate(run.ids)
    inputs = {name: ids[:, field] for field, name in enumerate(names)}
    begun, ended = [], []
    model.register_forward_pre_hook(lambda *_: begun.append(run.clock()))
    model.optim.register_step_post_hook(lambda *_: ended.append(run.clock()))

    def measure() -> Times:
        batch = len(run.labels[0])
        labels = np.concatenate(run.labels)
        model.fit(inputs, labels, batch_size=batch, epochs=1, verbose=0, shuffle=False)
        return {
            "step_seconds": np.diff(ended)[run.warmup - 1 :].tolist(),
            "step_seconds_without_loader": np.subtract(ended, begun)[run.warmup :].tolist(),
        }

    return measure


def _fuxictr(run: Run) -> Measure:
    """DeepFM composed of FuxiCTR's layers, in its train_step(); its wheel contains no DeepFM.

    The step also clips the norm of all gradients, including the tables', as FuxiCTR always does.
    Autocast decorates the model's ``forward`` and leaves the loss in float32.
    """
    model = fuxictr_deepfm(run)
    model.forward = run.autocast()(model.forward)
    data = []
    for ids, target in zip(run.ids, run.targets(), strict=True):
        columns = torch.from_numpy(np.ascontiguousarray(ids.T, np.int64)).to(run.device)
        data.append(dict(zip(model.feature_map.features, columns, strict=True), label=target))
    model.train()

    def step(i: int) -> None:
        model.train_step(data[i])

    return lambda: run.measure(step)


def fuxictr_deepfm(run: Run):
    """FuxiCTR's BaseModel around its own embedding, FM and MLP layers, compiled with Adam."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class LibraryDeepFM(BaseModel):
        def __init__(self, feature_map):
            gpu = 0 if run.device.type == "cuda" else -1
            super().__init__(feature_map, gpu=gpu, verbose=0, model_root="", metrics=[])
            initializer = functools.partial(nn.init.normal_, std=INIT_STD)
            self.embedding = FeatureEmbedding(feature_map, EMBED_DIM, initializer)
            self.fm = FactorizationMachine(feature_map)
            self.tower = MLP_Block(FIELDS * EMBED_DIM, hidden_units=list(MLP_DIMS), output_dim=1)

        def forward(self, inputs):
            columns = self.get_inputs(inputs)
            e = self.embedding(columns)
            logit = self.fm(columns, e) + self.tower(e.flatten(1))
            return {"y_pred": self.output_activation(logit)}

    feature_map = FeatureMap("benchmark", "")
    for field in range(FIELDS):
        spec = {"type": "categorical", "vocab_size": run.field_rows}
        feature_map.features[f"field_{field}"] = spec
    feature_map.num_fields = FIELDS
    feature_map.labels = ["label"]
    model = LibraryDeepFM(feature_map)
    model.compile("adam", "binary_crossentropy", LEARNING_RATE)
    model.model_to_device()
    # What fit() sets before its first step, to its default.
    model._max_gradient_norm = 10.0
    return model


def fbgemm_tables(field_rows: int, layout: str):
    """FBGEMM's fused tables of rows (e_f, w_f, unused), updated in backward by row-wise Adagrad.

    Args:
        field_rows: rows of each field.
        layout: ``tables``, a table per field; ``one_table``, a table that all fields read as
            bags of one; ``no_bags``, the same table read as one list of rows. The last updates the
            same rows by the same amounts, but in a kernel that is many times slower on a CPU.
    """
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
        BoundsCheckMode,
        EmbeddingLocation,
        PoolingMode,
    )
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    count, rows = (FIELDS, field_rows) if layout == "tables" else (1, FIELDS * field_rows)
    table = (rows, _PACKED_DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [table] * count,
        feature_table_map=[0] * FIELDS if layout == "one_table" else None,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LEARNING_RATE,
        pooling_mode=PoolingMode.NONE if layout == "no_bags" else PoolingMode.SUM,
        # The ids are in range, so it need not pay for the check.
        bounds_check_mode=BoundsCheckMode.NONE,
        device="cpu",
    )
    for weights in tables.split_embedding_weights():
        nn.init.normal_(weights, std=INIT_STD)
    return tables


def _fbgemm(run: Run, layout: str) -> Measure:
    if run.device.type != "cpu":
        raise ValueError(f"fbgemm is timed on the CPU only, not on {run.device}")
    tables, head = fbgemm_tables(run.field_rows, layout), Head()
    ids = run.global_ids()
    if layout == "tables":
        ids = [torch.from_numpy(local.astype(np.int64)) for local in run.ids]
    if layout != "no_bags":
        # Bags are ordered by field, then by example.
        ids = [batch.T.contiguous() for batch in ids]
    ids = [batch.flatten() for batch in ids]
    # Bags of one: bag i ends where i + 1 begins.
    offsets = torch.arange(len(ids[0]) + 1)

    def logit_of(i: int) -> torch.Tensor:
        packed = tables(ids[i], offsets).view(-1, FIELDS, _PACKED_DIM)
        # One split, because each of two slices would fill a whole gradient with zeros.
        e, w, _ = packed.split((EMBED_DIM, 1, _PACKED_DIM - EMBED_DIM - 1), dim=-1)
        return head(e, w.squeeze(-1))

    return training(run, logit_of, fused_adam(list(head.parameters())))


SYSTEMS: dict[str, Callable[[Run], Measure]] = {
    "torch_adam": torch_adam,
    "torch_sparse_adam": torch_sparse_adam,
    "torch_compile": torch_compile,
    "torch_tower": torch_tower,
    "torch_scoring": torch_scoring,
    "deepctr": _deepctr,
    "fuxictr": _fuxictr,
    "fbgemm": functools.partial(_fbgemm, layout="tables"),
    "fbgemm_one_table": functools.partial(_fbgemm, layout="one_table"),
    "fbgemm_no_bags": functools.partial(_fbgemm, layout="no_bags"),
}
