"""Times our training step, or scoring: ``python ours.py --system=NAME --rows=V``.

The counterpart of torch_peers.py. The steps are the library's own, on the batches of workload.py,
which are put on the device beforehand.

    ours_rowwise_adagrad       sparse path, row-wise Adagrad for the table, Adam for the tower
    ours_adam                  sparse path, lazy Adam for the table, Adam for the tower
    ours_dense_adam            dense path, Adam for everything
    ours_scoring               the forward pass alone
    ours_..._bf16              each of them with the tower's products in bfloat16

Prints one line of JSON (workload.report) on stdout.
"""

import argparse
import os
import time

import numpy as np
from workload import BATCH, BFLOAT16, EMBED_DIM, FIELDS, MLP_DIMS, batches, field_rows, report

from experiments.launcher import keep_freed_memory

_ROWWISE = {"table": "sparse", "rows": {"name": "rowwise_adagrad"}}
# Settings of the optimizer; None scores.
_SYSTEMS = {
    "ours_rowwise_adagrad": _ROWWISE,
    "ours_adam": {"table": "sparse"},
    "ours_dense_adam": {"table": "dense"},
    "ours_scoring": None,
}


def main() -> None:
    """Times the system that the flags name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = [name + dtype for name in _SYSTEMS for dtype in ("", BFLOAT16)]
    parser.add_argument("--system", required=True, choices=choices)
    parser.add_argument("--rows", required=True, type=int, help="rows of the table, all fields")
    parser.add_argument("--steps", default=25, type=int, help="steps timed")
    parser.add_argument("--warmup", default=5, type=int, help="steps before them")
    parser.add_argument("--threads", default=2, type=int, help="CPU cores to run on")
    parser.add_argument("--batch", default=BATCH, type=int, help="examples in a batch")
    flags = parser.parse_args()
    # Both before JAX starts, because it creates a thread for each core that it may use.
    keep_freed_memory()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.threads])

    import jax

    from deepfm_jax import DeepFM

    per_field = field_rows(flags.rows)
    model = DeepFM(
        (per_field,) * FIELDS,
        embed_dim=EMBED_DIM,
        mlp_dims=MLP_DIMS,
        dropout=0.0,
        compute_dtype="bfloat16" if flags.system.endswith(BFLOAT16) else "float32",
    )
    settings = _SYSTEMS[flags.system.removesuffix(BFLOAT16)]
    step, table_bytes = _scorer(model) if settings is None else _trainer(model, settings, flags)
    ids, labels = batches(flags.rows, flags.warmup + flags.steps, flags.batch)
    seconds = []
    for batch_ids, batch_labels in zip(ids, labels, strict=True):
        mask = np.ones(flags.batch, np.float32)
        batch = jax.device_put({"ids": batch_ids, "labels": batch_labels[:, None], "mask": mask})
        jax.block_until_ready(batch)
        start = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - start)
    report(
        seconds[flags.warmup :],
        system=flags.system,
        rows=FIELDS * per_field,
        batch=flags.batch,
        threads=flags.threads,
        device=jax.devices()[0].device_kind,
        jax=jax.__version__,
        table_and_slots_bytes=table_bytes,
    )


def _trainer(model, settings, flags):
    """A blocking training step of a batch, and the bytes of the table and the row state."""
    import jax

    from deepfm_jax.dataclass_data import from_data
    from deepfm_jax.distributed.partitioning import create_mesh
    from deepfm_jax.training.network import Network
    from deepfm_jax.training.optimizer import create_for
    from deepfm_jax.training.optimizer_settings import OptimizerSettings
    from deepfm_jax.training.state import create_state, placement_for
    from deepfm_jax.training.step import make_train_step

    settings = from_data(OptimizerSettings, settings, "optimizer")
    optimizer = create_for(settings, 1, model, flags.batch)
    mesh = create_mesh(jax.devices()[:1])
    train_step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    held = [create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))]
    table_bytes = _bytes((held[0].params["table"], held[0].row_state))

    def step(batch):
        state, _ = jax.block_until_ready(train_step(held.pop(), batch))
        held.append(state)

    return step, table_bytes


def _scorer(model):
    """A blocking scoring step of a batch, and the bytes of the table."""
    import jax

    from deepfm_jax.training.network import Network
    from deepfm_jax.training.state import init_weights
    from deepfm_jax.training.step import make_score_step

    weights = jax.jit(lambda: init_weights(Network(model), jax.random.key(0)))()
    score = make_score_step(Network(model))

    def step(batch):
        jax.block_until_ready(score(weights, {"ids": batch["ids"]}))

    return step, _bytes(weights.params["table"])


def _bytes(arrays):
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


if __name__ == "__main__":
    main()
