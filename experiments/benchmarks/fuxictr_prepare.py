"""Encodes a click log with FuxiCTR: ``python fuxictr_prepare.py --source=DIR --out=DIR``.

Its own feature processor of Criteo, called as its ``example1_build_dataset_to_parquet.py`` does,
with the columns of its published Criteo configs: the counts through ``convert_to_bucket``, every
column categorical. ``--data_block_size=N`` before the other flags is its setting of that name: 0,
its default, writes one file for each split, and else files of so many rows. Ids are those of
encoding_task.py but for a few: it has an id for unseen values apart from that for padding.

It reads CSV with a header, so it is given the same rows in copies of the files that begin with one.
It starts Ray, whose processes are counted in the memory that is reported.
"""
# Runs in the peers' environment, not in ours.
# pyright: reportMissingImports=false

import pathlib
import sys

import encoding_task as task
from fuxictr.datasets.criteo import CustomizedFeatureProcessor
from fuxictr.preprocess import build_dataset
from process_memory import PeakMemory

FEATURES = [
    {
        "name": task.COUNTS,
        "active": True,
        "dtype": "float",
        "type": "categorical",
        "preprocess": "convert_to_bucket",
    },
    {"name": task.CATEGORIES, "active": True, "dtype": "str", "type": "categorical"},
]


def encode(source: pathlib.Path, out: pathlib.Path, data_block_size: int) -> dict[str, object]:
    """Fits on train, and writes the ids of all three files."""
    with PeakMemory() as memory:
        processor = CustomizedFeatureProcessor(
            feature_cols=FEATURES,
            label_col={"name": task.LABEL, "dtype": "float"},
            dataset_id="criteo",
            data_root=str(out),
        )
        paths = {f"{split}_data": str(source / f"{split}.csv") for split in task.FILES}
        build_dataset(
            processor,
            **paths,
            sep="\t",
            min_categr_count=task.MIN_COUNT,
            data_block_size=data_block_size,
        )
    return {"peak_rss_bytes": memory.peak}


if __name__ == "__main__":
    BLOCK_SIZE = 0
    if sys.argv[1].startswith("--data_block_size="):
        BLOCK_SIZE = int(sys.argv.pop(1).partition("=")[2])
    task.run("fuxictr", lambda source, out: encode(source, out, BLOCK_SIZE))
