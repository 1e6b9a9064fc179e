"""Encodes a click log with pandas: ``python pandas_prepare.py --source=DIR --out=DIR``.

Each file is read whole, by pandas' own parser or, with ``--engine=pyarrow`` before the other
flags, by pyarrow's; the ids are written as Parquet. See encoding_task.py.
"""
# Runs in the peers' environment, not in ours. The stubs of pandas infer the type of a series only
# where it is created.
# pyright: reportMissingImports=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false

import pathlib
import sys

import encoding_task as task
import numpy as np
import pandas as pd

DTYPES = {
    task.LABEL: "float32",
    **dict.fromkeys(task.COUNTS, "float64"),
    **dict.fromkeys(task.CATEGORIES, "str"),
}


def read(path: pathlib.Path, engine: str) -> pd.DataFrame:
    """The rows of a file, counts as buckets."""
    rows = pd.read_csv(path, sep="\t", header=None, names=task.COLUMNS, dtype=DTYPES, engine=engine)
    for name in task.COUNTS:
        x = rows[name]
        rows[name] = np.floor(np.log(x.where(x > 2)).pow(2).fillna(x))
    return rows


def fit(column: pd.Series) -> pd.Index:
    """The values of a column in the order of their ids."""
    counts = column.value_counts()
    counts = counts[counts >= task.MIN_COUNT].rename("count").rename_axis("value").reset_index()
    return pd.Index(counts.sort_values(["count", "value"], ascending=[False, True])["value"])


def encode(source: pathlib.Path, out: pathlib.Path, engine: str) -> None:
    """Fits on train, and writes the ids of all three files."""
    vocabularies: dict[str, pd.Index] = {}
    for split in task.FILES:
        rows = read(source / f"{split}.tsv", engine)
        if not vocabularies:
            vocabularies = {name: fit(rows[name]) for name in task.COUNTS + task.CATEGORIES}
        ids = {
            # The indexer gives -1 for missing values and values outside the index.
            name: (vocabulary.get_indexer(rows[name]) + 1).astype(np.int32)
            for name, vocabulary in vocabularies.items()
        }
        encoded = pd.DataFrame({task.LABEL: rows[task.LABEL], **ids})
        encoded.to_parquet(out / f"{split}.parquet", index=False)


if __name__ == "__main__":
    ENGINE = "c"
    if sys.argv[1] == "--engine=pyarrow":
        ENGINE = "pyarrow"
        del sys.argv[1]
    task.run("pandas", lambda source, out: encode(source, out, ENGINE))
