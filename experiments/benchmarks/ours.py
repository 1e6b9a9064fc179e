"""Times our training step: ``python ours.py --system=NAME --rows=V``; see torch_peers.py.

The step is the trainer's own, on the batches of workload.py put on the device beforehand.

    ours_rowwise_adagrad       sparse path, row-wise Adagrad for the table, Adam for the tower
    ours_adam                  sparse path, lazy Adam for the table, Adam for the tower
    ours_dense_adam            dense path, Adam for everything
    ours_rowwise_adagrad_bf16  the first, with the tower's products in bfloat16
    ours_adam_bf16             the second, likewise

Prints one line of JSON (workload.report) on stdout.
"""

import argparse
import os
import time

from workload import BATCH, EMBED_DIM, FIELDS, MLP_DIMS, batches, field_rows, report

from experiments.launcher import keep_freed_memory

_ROWWISE = {"table": "sparse", "row_optimizer": "rowwise_adagrad"}
_ADAM = {"table": "sparse"}
_BFLOAT16 = {"compute_dtype": "bfloat16"}
# Settings of the optimizer, and those of the model.
_SYSTEMS = {
    "ours_rowwise_adagrad": (_ROWWISE, {}),
    "ours_adam": (_ADAM, {}),
    "ours_dense_adam": ({"table": "dense"}, {}),
    "ours_rowwise_adagrad_bf16": (_ROWWISE, _BFLOAT16),
    "ours_adam_bf16": (_ADAM, _BFLOAT16),
}


def main() -> None:
    """Times the system that the flags name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", required=True, choices=_SYSTEMS)
    parser.add_argument("--rows", required=True, type=int, help="rows of the table, all fields")
    parser.add_argument("--steps", default=25, type=int, help="steps timed")
    parser.add_argument("--warmup", default=5, type=int, help="steps before them")
    parser.add_argument("--threads", default=2, type=int, help="CPU cores to run on")
    parser.add_argument("--batch", default=BATCH, type=int, help="examples in a batch")
    flags = parser.parse_args()
    # Both before JAX starts, which makes a thread for each core that it may run on.
    keep_freed_memory()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.threads])

    import jax
    import numpy as np

    from deepfm_jax import DeepFM
    from deepfm_jax.heads import OneTask
    from deepfm_jax.partitioning import create_mesh
    from deepfm_jax.training.optimizer import create_for
    from deepfm_jax.training.settings import OptimizerSettings, from_mapping
    from deepfm_jax.training.state import create_state
    from deepfm_jax.training.step import make_train_step

    per_field = field_rows(flags.rows)
    of_optimizer, of_model = _SYSTEMS[flags.system]
    model = DeepFM(
        (per_field,) * FIELDS, embed_dim=EMBED_DIM, mlp_dims=MLP_DIMS, dropout=0.0, **of_model
    )
    settings = from_mapping(OptimizerSettings, of_optimizer, "")
    optimizer = create_for(settings, 1, model, flags.batch)
    mesh = create_mesh(jax.devices()[:1])
    state = create_state(model, optimizer, 0, mesh)
    step = make_train_step(model, optimizer, OneTask(), mesh)
    ids, labels = batches(flags.rows, flags.warmup + flags.steps, flags.batch)
    mask = jax.device_put(np.ones(flags.batch, np.float32))
    seconds = []
    for batch_ids, batch_labels in zip(ids, labels, strict=True):
        batch = jax.device_put({"ids": batch_ids, "labels": batch_labels[:, None]})
        batch = jax.block_until_ready({**batch, "mask": mask})
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    report(
        seconds[flags.warmup :],
        system=flags.system,
        rows=FIELDS * per_field,
        batch=flags.batch,
        threads=flags.threads,
        device=jax.devices()[0].device_kind,
        jax=jax.__version__,
        table_and_slots_bytes=sum(
            leaf.nbytes for leaf in jax.tree.leaves((state.params["table"], state.slots))
        ),
    )


if __name__ == "__main__":
    main()
