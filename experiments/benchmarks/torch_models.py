"""DeepFM in plain PyTorch, ready to be timed; torch_peers.py is the launcher.

A system is a function of a ``Run``. It builds its model, its optimizer and its batches, and returns
a function that trains through the batches and returns the times. Axes: B examples, F fields, D
dimensions of an embedding, V rows of the table.
"""
# Runs in the peers' environment; ours has torch only with the extra ``parity``.
# pyright: reportMissingImports=false

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from workload import EMBED_DIM, FIELDS, MLP_DIMS

# Small, so that no logit starts saturated; the speed does not depend on it.
INIT_STD = 0.01
LEARNING_RATE = 1e-3

Times = dict[str, list[float]]
Measure = Callable[[], Times]


@dataclasses.dataclass(frozen=True)
class Run:
    """The batches, the device and the precision of a timed system.

    Attributes:
        field_rows: rows of each field, V / F.
        ids: for each step, ids [B, F] int32, local to each field.
        labels: for each step, labels [B] float32.
        warmup: number of first steps that are not timed.
        device: device of the model and its batches.
        bfloat16: whether products run in bfloat16, by autocast.
    """

    field_rows: int
    ids: list[np.ndarray]
    labels: list[np.ndarray]
    warmup: int
    device: torch.device
    bfloat16: bool

    def global_ids(self) -> list[torch.Tensor]:
        """Ids [B, F] int64 into one table of all fields, on the device."""
        starts = np.arange(FIELDS) * self.field_rows
        return [torch.from_numpy(ids + starts).to(self.device) for ids in self.ids]

    def targets(self) -> list[torch.Tensor]:
        """Labels [B] float32, on the device."""
        return [torch.from_numpy(labels).to(self.device) for labels in self.labels]

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 as a context or a decorator; it does nothing in float32.

        It keeps its bfloat16 copies of the weights until it ends, even if an optimizer changes the
        weights meanwhile, so each step of training must enter it anew. Only the forward pass needs
        it: the backward pass runs in the dtypes of the forward one.
        """
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def clock(self) -> float:
        """The time in seconds, read after the device has finished all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def measure(self, step: Callable[[int], None]) -> Times:
        """Times ``step(i)`` for each batch i after the warm-up."""
        moments = [self.clock()]
        for i in range(len(self.ids)):
            step(i)
            moments.append(self.clock())
        return {"step_seconds": np.diff(moments)[self.warmup :].tolist()}


class Tower(nn.Module):
    """The ReLU tower: e [B, F·D] -> its term of the logit [B]."""

    def __init__(self):
        super().__init__()
        widths = (FIELDS * EMBED_DIM, *MLP_DIMS)
        layers: list[nn.Module] = []
        for width, next_width in zip(widths, MLP_DIMS, strict=False):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        # Without a bias, because the logit has one.
        self.layers = nn.Sequential(*layers, nn.Linear(MLP_DIMS[-1], 1, bias=False))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Runs the tower."""
        return self.layers(inputs).squeeze(-1)


class Head(nn.Module):
    """DeepFM above its tables: e [B, F, D] and w [B, F] -> logit [B].

    logit = bias + sum_f w_f + sum_{f<g} <e_f, e_g> + tower(e), the pairs by the FM identity
    (Rendle 2010, Lemma 3.1).
    """

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.tower = Tower()

    def forward(self, e: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Sums the four terms."""
        pairs = 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(-1)
        return self.bias + w.sum(1) + pairs + self.tower(e.flatten(1))


def _table(rows: int, dim: int, sparse: bool) -> nn.Embedding:
    # Filled in place, once: nn.Embedding would first draw values that are then discarded.
    weights = torch.empty(rows, dim).normal_(std=INIT_STD)
    return nn.Embedding.from_pretrained(weights, freeze=False, sparse=sparse)


class DeepFM(nn.Module):
    """DeepFM with tables of embeddings and first-order weights, read by global ids [B, F]."""

    def __init__(self, rows: int, *, sparse: bool = False):
        super().__init__()
        self.embedding = _table(rows, EMBED_DIM, sparse)
        self.first_order = _table(rows, 1, sparse)
        self.head = Head()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Looks up and runs the head."""
        return self.head(self.embedding(ids), self.first_order(ids).squeeze(-1))


def fused_adam(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam in one kernel, PyTorch's fastest."""
    return torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)


def training(
    run: Run,
    logit_of: Callable[[int], torch.Tensor],
    *optimizers: torch.optim.Optimizer,
) -> Measure:
    """Trains the logit [B] of each batch on its labels in plain PyTorch, with a float32 loss."""
    targets = run.targets()
    forward = run.autocast()(logit_of)

    def step(i: int) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        logit = forward(i).float()
        functional.binary_cross_entropy_with_logits(logit, targets[i]).backward()
        for optimizer in optimizers:
            optimizer.step()

    return lambda: run.measure(step)


def torch_adam(run: Run) -> Measure:
    """Dense gradients of the tables, one fused Adam over everything."""
    model = DeepFM(FIELDS * run.field_rows).to(run.device)
    ids = run.global_ids()
    return training(run, lambda i: model(ids[i]), fused_adam(list(model.parameters())))


def torch_compile(run: Run) -> Measure:
    """``torch_adam``, its model compiled in the default mode."""
    model = DeepFM(FIELDS * run.field_rows).to(run.device)
    compiled = torch.compile(model)
    ids = run.global_ids()
    return training(run, lambda i: compiled(ids[i]), fused_adam(list(model.parameters())))


def torch_sparse_adam(run: Run) -> Measure:
    """Sparse gradients of the tables with SparseAdam; fused Adam for the rest."""
    model = DeepFM(FIELDS * run.field_rows, sparse=True).to(run.device)
    tables = [model.embedding.weight, model.first_order.weight]
    sparse = torch.optim.SparseAdam(tables, lr=LEARNING_RATE)
    ids = run.global_ids()
    return training(run, lambda i: model(ids[i]), sparse, fused_adam(list(model.head.parameters())))


def torch_scoring(run: Run) -> Measure:
    """Only the forward pass, in inference mode; in bfloat16 under no_grad.

    Autocast stays on between batches, as in PyTorch's inference example, and casts the weights,
    which never change here, once. In inference mode it would cast them for each batch.
    """
    model = DeepFM(FIELDS * run.field_rows).to(run.device).eval()
    ids = run.global_ids()
    without_gradients = torch.no_grad if run.bfloat16 else torch.inference_mode

    def step(i: int) -> None:
        with without_gradients():
            model(ids[i])

    def measure() -> Times:
        with run.autocast():
            return run.measure(step)

    return measure


def torch_tower(run: Run) -> Measure:
    """Only the tower, forward and backward to its input, without a table."""
    tower = Tower().to(run.device)
    shape = (len(run.labels[0]), FIELDS * EMBED_DIM)
    inputs = torch.randn(shape, device=run.device, requires_grad=True)

    def logit_of(_: int) -> torch.Tensor:
        inputs.grad = None
        return tower(inputs)

    return training(run, logit_of, fused_adam(list(tower.parameters())))
