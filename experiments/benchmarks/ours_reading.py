"""Times our reading of shuffled batches from disk: ``python ours_reading.py --data=DIR``.

Reads the batches of the criteo data set that ``prepare`` put into DIR, in the order of a training
epoch, without a model. Prints one line of JSON (workload.report), in which a step is an epoch; the
first, in which threads start and pages are loaded into memory, is left out.
"""

import argparse
import time

from workload import BATCH, report

from experiments.launcher import keep_freed_memory


def main() -> None:
    """Reads and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of prepared data sets")
    parser.add_argument("--epochs", default=3, type=int, help="epochs timed")
    flags = parser.parse_args()
    keep_freed_memory()

    from deepfm_jax.input.pipeline import PreparedData

    data = PreparedData("criteo", flags.data)
    seconds = []
    for epoch in range(1 + flags.epochs):
        start = time.perf_counter()
        count = sum(1 for _ in data.batches("train", BATCH, seed=0, epoch=epoch))
        seconds.append(time.perf_counter() - start)
        assert count == data.steps_per_epoch("train", BATCH)
    report(seconds[1:], system="ours_reading", rows=data.rows("train"))


if __name__ == "__main__":
    main()
