"""Writes the blocks of a split as they arrive, so that memory does not grow with the data.

TFDS's own writer keeps up to a gigabyte of a split in memory and the rest in a temporary file,
which it reads completely at the end: it may have to shuffle, and needs the total size to choose the
number of files. Blocks are already in order, so neither is needed.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

# A million examples per file, so that several hosts and threads can read a large split at once.
FILE_BLOCKS = 256


def write_split(
    blocks: Iterable[tuple[int, Mapping[str, np.ndarray]]],
    features: Any,
    template: Any,
) -> tfds.core.SplitInfo:
    """Writes numbered blocks in order, and returns TFDS's description of the files.

    Args:
      blocks: Number and columns of each block, as ``_generate_examples`` of a TFDS builder yields.
      features: Features of the data set, from its TFDS info.
      template: TFDS's template of the split's file names.
    """
    serializer = ExampleSerializer(features.get_serialized_info())
    folder = pathlib.Path(template.data_dir)
    paths: list[pathlib.Path] = []
    lengths: list[int] = []
    size = 0
    writer = None
    try:
        for _, block in blocks:
            if writer is None or lengths[-1] == FILE_BLOCKS:
                if writer is not None:
                    writer.close()
                # File names contain the number of files, which is known only at the end.
                paths.append(folder / f"{template.split}.{len(paths)}.incomplete")
                writer = ArrayRecordWriter(os.fspath(paths[-1]), "group_size:1")
                lengths.append(0)
            record = serializer.serialize_example(features.encode_example(block))
            writer.write(record)
            lengths[-1] += 1
            size += len(record)
    finally:
        if writer is not None:
            writer.close()
    for index, path in enumerate(paths):
        path.rename(template.sharded_filepath(shard_index=index, num_shards=len(paths)))
    return tfds.core.SplitInfo(
        name=template.split, shard_lengths=lengths, num_bytes=size, filename_template=template
    )
