"""Times our epochs on Frappe: ``python ours_epoch.py --data=DIR``; see epoch.py.

The reader, the step and the fetching of losses are the trainer's own. Prints one line of JSON
(workload.report), in which a step is an epoch; the first, which compiles, is left out.
"""

import argparse
import time

from workload import report

from experiments.launcher import keep_freed_memory


def main() -> None:
    """Trains and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of prepared data sets")
    parser.add_argument("--epochs", default=5, type=int, help="epochs timed")
    flags = parser.parse_args()
    keep_freed_memory()

    import jax

    from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
    from deepfm_jax.input.pipeline import PreparedData, prefetch_to_device
    from deepfm_jax.training.network import Network
    from deepfm_jax.training.optimizer import create_for
    from deepfm_jax.training.settings import Experiment
    from deepfm_jax.training.state import create_state, placement_for
    from deepfm_jax.training.step import make_train_step
    from experiments.configs.frappe import get_config

    experiment = Experiment.from_mapping(get_config().to_dict())
    batch_size = experiment.loop.batch_size
    data = PreparedData("frappe", flags.data)
    model = experiment.build_model(data.encoder)
    optimizer = create_for(experiment.optimizer, 1, model, batch_size)
    mesh = create_mesh(jax.devices()[:1])
    state = create_state(Network(model), optimizer, 0, placement_for(optimizer, mesh))
    step = make_train_step(Network(model), optimizer, placement_for(optimizer, mesh))
    seconds = []
    for epoch in range(1 + flags.epochs):
        start = time.perf_counter()
        losses = []
        batches = data.batches("train", batch_size, seed=0, epoch=epoch)
        for batch in prefetch_to_device(batches, batch_sharding(mesh, batch_size)):
            state, metrics = step(state, batch)
            losses.append(metrics["loss"])
            if len(losses) == experiment.loop.log_steps:
                jax.device_get(losses)
                losses = []
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - start)
    report(seconds[1:], system="ours_epoch", jax=jax.__version__)


if __name__ == "__main__":
    main()
