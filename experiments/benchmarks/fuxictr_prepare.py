"""Encodes a click log with FuxiCTR: ``python fuxictr_prepare.py --source=DIR --out=DIR``.

It uses FuxiCTR's own feature processor for Criteo, called as in its
``example1_build_dataset_to_parquet.py``, with the columns of its published Criteo configs: the
counts go through ``convert_to_bucket``, and every column is categorical. ``--data_block_size=N``
before the other flags is FuxiCTR's setting of that name: 0, its default, writes one file per split,
any other value files of N rows. The ids are those of encoding_task.py with few exceptions: FuxiCTR
has separate ids for unseen values and for padding.

FuxiCTR reads CSV with a header, so it gets copies of the files that begin with one. It starts Ray,
whose processes count towards the reported memory.
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
