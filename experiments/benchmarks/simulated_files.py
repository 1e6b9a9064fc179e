"""Writes a simulated click log as text files in Criteo's layout."""

import pathlib

import pyarrow as pa
import pyarrow.csv as pa_csv
from tqdm import tqdm

from deepfm_jax.datasets import simulator as synthetic
from experiments.benchmarks import encoding_task as task

_CHUNK_ROWS = 1 << 17
# Each chunk has its own stream of the simulator; files are far apart, so they never share one.
_STREAMS_OF_FILE = 1_000_000
_SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def write_files(folder: pathlib.Path, rows: int) -> None:
    """Writes ``rows`` rows in ``train.tsv``, ``valid.tsv`` and ``test.tsv``, 80/10/10.

    It also writes the same rows as ``.csv`` files, which are still separated by tabs but begin with
    a header, for readers that need one.
    """
    simulator = synthetic.Simulator()
    with tqdm(desc="simulate", total=rows, unit=" rows", unit_scale=True) as bar:
        for index, (split, share) in enumerate(_SHARES.items()):
            stream = index * _STREAMS_OF_FILE
            left = round(rows * share)
            with (
                (folder / f"{split}.tsv").open("wb") as plain,
                (folder / f"{split}.csv").open("wb") as headed,
            ):
                headed.write("\t".join(task.COLUMNS).encode() + b"\n")
                while left > 0:
                    simulated = simulator.simulate(min(_CHUNK_ROWS, left), stream=stream)
                    text = _text(simulated.table)
                    plain.write(text)
                    headed.write(text)
                    bar.update(simulated.table.num_rows)
                    left -= simulated.table.num_rows
                    stream += 1


def _text(table: pa.Table) -> memoryview:
    """The rows as text, with labels and counts as whole numbers, as in Criteo's files."""
    whole = {name: table[name].cast(pa.int64()) for name in (task.LABEL, *task.COUNTS)}
    table = pa.table({name: whole.get(name, table[name]) for name in task.COLUMNS})
    sink = pa.BufferOutputStream()
    options = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pa_csv.write_csv(table, sink, options)
    return memoryview(sink.getvalue())
