"""Scoring a file: the same rows in the same order, with a probability at the end of each."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from deepfm_jax.data.sources import RowReport, read_tables, text_extension
from deepfm_jax.errors import UserError
from deepfm_jax.serving.predictor import Predictor

_COLUMN = "probability"


def predict_file(
    predictor: Predictor,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_bad_rows: int = 0,
) -> RowReport:
    """Writes the fields (and label, where there is one) of each row, then its probability.

    The output's name tells its format: ``.parquet``, or text in the layout of the schema (a header
    line where the input has one). It is complete or absent.

    Raises:
      UserError: see ``sources.read_tables``; an output that cannot be written or whose format is
        unknown.
    """
    output = pathlib.Path(output)
    if output.suffix != ".parquet" and text_extension(output) is None:
        raise UserError(f"{output}: unknown kind of file; use .tsv, .csv, .txt or .parquet")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: its folder does not exist; make it first")
    report = RowReport()
    schema = predictor.encoder.schema
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    writer = None
    try:
        for table in read_tables(
            path, schema, labelled=None, max_bad_rows=max_bad_rows, report=report
        ):
            scored = table.append_column(
                _COLUMN, pa.array(predictor.probabilities(table).astype(np.float64))
            )
            if writer is None:
                writer = _open(temporary, scored.schema, schema.text)
            writer.write_table(scored)
        if writer is not None:
            writer.close()
            os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _open(path: pathlib.Path, columns: pa.Schema, text):
    if path.suffix == ".parquet":
        return pa.parquet.ParquetWriter(path, columns)
    return pa.csv.CSVWriter(
        pa.output_stream(os.fspath(path), compression="detect"),
        columns,
        write_options=pa.csv.WriteOptions(
            include_header=text.header,
            delimiter=text.delimiter,
            quoting_style="needed" if text.quoting else "none",
        ),
    )
