"""DeepFM against the PyTorch definition of ``make_deepfm.py``, with its weights carried over."""

import importlib.util
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import DeepFM
from deepfm_jax.heads import OneTask

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(HERE / "deepfm.npz"))


def as_params(arrays, kind):
    """PyTorch's names and layouts to ours: a Linear's weight is our kernel transposed."""

    def of(name):
        return jnp.asarray(arrays[f"{kind}/{name}"], jnp.float32)

    def dense(index):
        return {"kernel": of(f"mlp.{index}.weight").T, "bias": of(f"mlp.{index}.bias")}

    hidden = len(arrays["mlp_dims"])
    # Linear, ReLU and Dropout: every third module is a Linear.
    tower = {f"dense_{layer}": dense(3 * layer) for layer in range(hidden)}
    return {
        "table": {
            "first_order": of("linear.weight")[:, 0],
            "embedding": of("embedding.weight"),
        },
        "bias": of("bias"),
        "tower": {**tower, "out": dense(3 * hidden)},
    }


def assert_agrees(arrays):
    model = DeepFM(
        field_dims=tuple(arrays["field_dims"].tolist()),
        embed_dim=arrays["weight/embedding.weight"].shape[1],
        mlp_dims=tuple(arrays["mlp_dims"].tolist()),
        dropout=0.2,
    )
    ids = jnp.asarray(arrays["ids"], jnp.int32)
    labels = jnp.asarray(arrays["labels"], jnp.float32)[:, None]
    head = OneTask()

    def loss_fn(params):
        logits = model.apply({"params": params}, ids)
        logits = logits[:, None]
        return head.loss(logits, labels, jnp.ones(len(ids))), logits

    params = as_params(arrays, "weight")
    (loss, logits), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    chex.assert_trees_all_close(
        head.probabilities(logits)[:, 0], arrays["probabilities"], rtol=1e-7, atol=1e-6
    )
    chex.assert_trees_all_close(loss, arrays["loss"], rtol=1e-6, atol=0)
    expected = as_params(arrays, "gradient")
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_agrees_with_the_stored_golden(golden):
    assert_agrees(golden)


def test_the_golden_is_not_trivial(golden):
    probabilities = golden["probabilities"]
    assert probabilities.std() > 0.1
    for name in (key for key in golden if key.startswith("gradient/")):
        assert np.abs(golden[name]).max() > 1e-3, name


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed (pip install -e '.[parity]'); the stored golden was compared",
)
def test_agrees_with_pytorch_live(golden, tmp_path):
    # In a process of its own: torch and TensorFlow in one are asking for trouble.
    path = tmp_path / "live.npz"
    subprocess.run([sys.executable, HERE / "make_deepfm.py", path], check=True)
    live = dict(np.load(path))
    chex.assert_trees_all_close(live, golden, rtol=1e-9, atol=1e-12)
    assert_agrees(live)
