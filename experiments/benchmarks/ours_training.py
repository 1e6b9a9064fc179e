"""Times training from disk beside training from memory: ``python ours_training.py --data=DIR``.

Trains the DeepFM of workload.py (lazy Adam) on the criteo data set that ``prepare`` put into DIR.
One pass of ``--steps`` steps takes its batches from a list in memory, the other from the data set
on disk like the trainer, from the first batch of an epoch on, including the time to fill the
shuffle window; ``--round`` alternates which of them comes first. Prints one line of JSON
(workload.report) with the seconds of both, and the share of the pass from disk in which no step ran
because its batch was missing, as counted by the trainer.
"""

import argparse
import itertools
import time

from workload import BATCH, EMBED_DIM, MLP_DIMS, report

from experiments.launcher import keep_freed_memory

_WARM_UP, _LOG_STEPS = 10, 100


def main() -> None:
    """Trains both ways and times them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of prepared data sets")
    parser.add_argument("--steps", default=300, type=int, help="steps of each pass")
    parser.add_argument("--round", default=0, type=int, help="odd: from disk first")
    flags = parser.parse_args()
    keep_freed_memory()

    import jax

    from deepfm_jax import DeepFM
    from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
    from deepfm_jax.input.pipeline import PreparedData, prefetch_to_device
    from deepfm_jax.training.network import Network
    from deepfm_jax.training.optimizer import create_for
    from deepfm_jax.training.optimizer_settings import OptimizerSettings
    from deepfm_jax.training.state import create_state, placement_for
    from deepfm_jax.training.step import make_train_step
    from deepfm_jax.training.waiting import TimedBatches

    data = PreparedData("criteo", flags.data)
    steps = min(flags.steps, data.steps_per_epoch("train", BATCH))
    model = DeepFM(data.encoder.features, embed_dim=EMBED_DIM, mlp_dims=MLP_DIMS, dropout=0.0)
    settings = OptimizerSettings(table="sparse")
    optimizer = create_for(settings, 1, model, BATCH)
    mesh = create_mesh(jax.devices()[:1])
    sharding = batch_sharding(mesh, BATCH)
    train_step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))

    def read(epoch):
        return itertools.islice(data.batches("train", BATCH, seed=0, epoch=epoch), steps)

    def train(state, batches):
        """Returns the state, total seconds, and seconds in which the device waited for a batch."""
        waited = 0.0
        losses = []
        begin = time.perf_counter()
        timed = TimedBatches(prefetch_to_device(batches, sharding))
        for batch in timed:
            waited += timed.waited
            state, metrics = train_step(state, batch)
            timed.started(metrics["loss"])
            losses.append(metrics["loss"])
            if len(losses) == _LOG_STEPS:
                jax.device_get(losses)
                losses = []
        jax.block_until_ready(state)
        return state, time.perf_counter() - begin, waited

    in_memory = list(read(epoch=0))
    state, _, _ = train(state, in_memory[:_WARM_UP])
    sources = {"memory": lambda: iter(in_memory), "disk": lambda: read(epoch=1)}
    seconds, waited = {}, {}
    for name in sorted(sources, reverse=flags.round % 2 == 0):
        state, seconds[name], waited[name] = train(state, sources[name]())
    report(
        [],
        system="ours_training",
        examples=steps * BATCH,
        memory_seconds=seconds["memory"],
        disk_seconds=seconds["disk"],
        waiting_share=waited["disk"] / seconds["disk"],
    )


if __name__ == "__main__":
    main()
