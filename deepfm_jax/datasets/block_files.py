"""Writing the blocks of a split as they come, so that memory does not grow with rows.

TFDS's own writer keeps up to a gigabyte of a split in memory, and whatever is beyond that in a
temporary file, which it reads whole at the end: it may have to shuffle, and must know how much
there is before it decides on the number of files. Blocks have their order, so neither is needed.
"""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

# Of a file, a million rows: several hosts and threads may read a large split at once.
FILE_BLOCKS = 256


def write_split(
    blocks: Iterable[tuple[int, Mapping[str, np.ndarray]]],
    features: Any,
    template: Any,
) -> tfds.core.SplitInfo:
    """Writes numbered blocks in their order, and tells TFDS what is where.

    Args:
      blocks: Number and columns of each, as ``_generate_examples`` of a TFDS builder gives them.
      features: Of the data set, as its TFDS info has them.
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
                # How many files there are, which their names tell, is known at the end.
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
