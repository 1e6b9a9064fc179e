"""Encodes a click log with polars: ``python polars_prepare.py --source=DIR --out=DIR``.

Each file is read whole, on all cores; the ids are written as Parquet. See encoding_task.py.
"""
# Runs in the peers' environment, not in ours.
# pyright: reportMissingImports=false

import pathlib

import encoding_task as task
import polars as pl

SCHEMA = {
    task.LABEL: pl.Float32,
    **dict.fromkeys(task.COUNTS, pl.Float64),
    **dict.fromkeys(task.CATEGORIES, pl.String),
}


def read(path: pathlib.Path) -> pl.DataFrame:
    """The rows of a file, counts as buckets."""
    rows = pl.read_csv(path, separator="\t", has_header=False, schema=SCHEMA, quote_char=None)
    x = pl.col(task.COUNTS)
    return rows.with_columns(pl.when(x > 2).then(x.log().pow(2)).otherwise(x).floor())


def fit(column: pl.Series) -> pl.Series:
    """The values of a column in the order of their ids."""
    counts = column.drop_nulls().value_counts(name="count")
    kept = counts.filter(pl.col("count") >= task.MIN_COUNT)
    return kept.sort("count", column.name, descending=[True, False])[column.name]


def encode(source: pathlib.Path, out: pathlib.Path) -> None:
    """Fits on train, and writes the ids of all three files."""
    vocabularies: dict[str, pl.Series] = {}
    for split in task.FILES:
        rows = read(source / f"{split}.tsv")
        if not vocabularies:
            vocabularies = {name: fit(rows[name]) for name in task.COUNTS + task.CATEGORIES}
        encoded = rows.with_columns(
            pl.col(name).replace_strict(
                vocabulary,
                pl.int_range(1, len(vocabulary) + 1, dtype=pl.Int32, eager=True),
                default=0,
                return_dtype=pl.Int32,
            )
            for name, vocabulary in vocabularies.items()
        )
        encoded.write_parquet(out / f"{split}.parquet")


if __name__ == "__main__":
    task.run("polars", encode)
