"""Makes ``deepfm.npz``: inputs, weights, outputs and gradients of a DeepFM in PyTorch.

  python tests/golden/make_deepfm.py [OUT.npz]

Needs torch (2.13.0 was used). Everything is float64 and seeded with NumPy, so that the file does
not depend on torch's random numbers.
"""

import pathlib
import sys

import numpy as np
import torch
from torch import nn

FIELD_DIMS = (5, 11, 3, 7, 2)
EMBED_DIM = 4
MLP_DIMS = (8, 6)
BATCH = 16


class DeepFM(nn.Module):
    """The definition that deepfm_jax must agree with."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(sum(FIELD_DIMS), EMBED_DIM)
        self.linear = nn.Embedding(sum(FIELD_DIMS), 1)
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("offsets", torch.tensor(np.cumsum((0, *FIELD_DIMS[:-1]))))
        layers, width = [], len(FIELD_DIMS) * EMBED_DIM
        for hidden in MLP_DIMS:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2)]
            width = hidden
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, ids):
        rows = ids + self.offsets
        e = self.embedding(rows)
        fm = 0.5 * ((e.sum(1)) ** 2 - (e**2).sum(1)).sum(1)
        deep = self.mlp(e.flatten(1)).squeeze(1)
        return torch.sigmoid(self.bias + self.linear(rows).sum(1).squeeze(1) + fm + deep)


def make():
    """All arrays of the golden file, by name."""
    rng = np.random.default_rng(2017)
    model = DeepFM().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(rng.normal(0, 0.4, tuple(parameter.shape))))
    ids = np.stack([rng.integers(0, dim, BATCH) for dim in FIELD_DIMS], axis=1)
    labels = rng.integers(0, 2, BATCH).astype(np.float64)
    probabilities = model(torch.tensor(ids))
    loss = nn.functional.binary_cross_entropy(probabilities, torch.tensor(labels))
    loss.backward()
    arrays = {
        "field_dims": np.array(FIELD_DIMS),
        "mlp_dims": np.array(MLP_DIMS),
        "ids": ids,
        "labels": labels,
        "probabilities": probabilities.detach().numpy(),
        "loss": loss.detach().numpy(),
    }
    for name, parameter in model.named_parameters():
        arrays[f"weight/{name}"] = parameter.detach().numpy()
        arrays[f"gradient/{name}"] = parameter.grad.numpy()
    return arrays


if __name__ == "__main__":
    default = pathlib.Path(__file__).with_name("deepfm.npz")
    np.savez_compressed(sys.argv[1] if len(sys.argv) > 1 else default, **make())
