"""Encodes raw click logs: ``deepfm-jax prepare --dataset=NAME --source=DIR --out=DIR``.

Prints the rows read, kept and rejected, the positive rates and the vocabulary sizes, and writes
them to ``results.json`` in the prepared data set's folder. ``--cross=C1,C2`` adds a cross-product
feature of two or more columns; repeat it for several.

For a table of your own use ``--dataset=tabular --schema=FILE``; ``--source`` may then be a file or
a pattern of files. ``--infer_schema --source=FILE --schema=FILE`` only writes a first schema and
explains the kind of each column.

``--inspect`` encodes nothing: it reports on every column of the raw rows, on the terminal and as
``inspection.html``, ``.txt`` and ``.json`` in ``--out``. Without ``--schema``, tabular is inspected
under the schema that ``--infer_schema`` would write.

``--extend_from=FOLDER`` starts from the encoder of a prepared data set or a workdir, which keeps
its ids; values that are new in these training rows get ids after them.

``--beam_runner=DirectRunner`` (or FlinkRunner, SparkRunner, ...) runs the work as Apache Beam
pipelines, with ``--beam_options=key=value,key=value``; BUILD.md says how.
"""

import dataclasses
import pathlib

from absl import flags

from deepfm_jax.errors import UserError

from . import encoding_flags, launcher

flags.adopt_module_key_flags(encoding_flags)

_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set: avazu, census_income, criteo, frappe, libsvm, movielens, synthetic, or tabular for "
    "a table of your own.",
)
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Folder of raw files, on a disk or as gs://...; for tabular and libsvm also a file or a "
    "pattern; none for synthetic.",
)
_INFER_SCHEMA = flags.DEFINE_bool(
    "infer_schema", False, "Write --schema from a sample of --source, for you to edit, and stop."
)
_LABEL = flags.DEFINE_string("label", None, "With --infer_schema: the column to predict.")
_OUT = flags.DEFINE_string("out", "data", "Folder of prepared data sets.")
_INSPECT = flags.DEFINE_bool(
    "inspect", False, "Report on every column of --source in --out, and encode nothing."
)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner", None, "Apache Beam runner that does the work; needs deepfm_jax[beam]."
)
_BEAM_OPTIONS = flags.DEFINE_multi_string(
    "beam_options", [], "Options of the runner, as key=value,key=value; may be repeated."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a prepared data set.")


def main() -> None:
    """Prepares the data set and prints a summary of its rows."""
    if _INFER_SCHEMA.value:
        infer()
        return
    if _DATASET.value is None:
        raise UserError("which data set? give --dataset=NAME, tabular for a table of your own")
    inferred = (
        _INSPECT.value and _DATASET.value == "tabular" and encoding_flags.SCHEMA.value is None
    )
    if _LABEL.value is not None and not inferred:
        raise UserError("--label goes with --infer_schema; in a schema the label is a column")
    if _INSPECT.value:
        inspect(inferred)
        return
    # These imports come after the flags: TensorFlow takes seconds, which a typo should not cost.
    from deepfm_jax.datasets.beam.engine import BeamEngine
    from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
    from deepfm_jax.encoding.encoder import Encoder, features_as_data
    from deepfm_jax.encoding.extension import describe_growth
    from deepfm_jax.files import write_json

    launcher.clean_up_on_signals()
    summaries = prepare(
        _DATASET.value,
        _OUT.value,
        source=_SOURCE.value,
        options=encoding_flags.build_options(),
        overwrite=_OVERWRITE.value,
        beam=BeamEngine.from_flags(_BEAM_RUNNER.value, _BEAM_OPTIONS.value),
    )
    folder = dataset_folder(_DATASET.value, _OUT.value)
    encoder = Encoder.load(folder)
    print(describe(summaries, encoder, folder))
    write_json(
        folder / "results.json",
        {
            "dataset": _DATASET.value,
            "splits": {split: dataclasses.asdict(summary) for split, summary in summaries.items()},
            "features": features_as_data(encoder),
        },
    )
    if encoding_flags.EXTEND_FROM.value is not None:
        print(describe_growth(Encoder.load(encoding_flags.EXTEND_FROM.value), encoder))
    print(f"prepared in {folder}")


def inspect(inferred: bool) -> None:
    """Reports on the columns of the raw rows, under an inferred schema if none is given."""
    from deepfm_jax.datasets.tabular import train_files
    from deepfm_jax.infer_schema.infer import infer_schema
    from deepfm_jax.profiling import describe, inspect_source, write_inspection
    from deepfm_jax.profiling.output import check_absent

    if not _OVERWRITE.value:
        check_absent(_OUT.value)
    launcher.clean_up_on_signals()
    schema = None
    if inferred:
        if _SOURCE.value is None:
            raise UserError("--inspect reads --source=FILE; give it")
        inference = infer_schema(train_files(_SOURCE.value), _LABEL.value)
        schema = inference.schema
        print(inference.describe(), end="\n\n")
    assert _DATASET.value is not None
    found = inspect_source(
        _DATASET.value, source=_SOURCE.value, options=encoding_flags.build_options(schema)
    )
    write_inspection(found, _OUT.value)
    print(describe(found))
    print(f"inspection.html, inspection.txt and inspection.json are in {_OUT.value}")


def infer() -> None:
    """Writes a schema for the source and explains the kind of each column."""
    from deepfm_jax.datasets.tabular import train_files
    from deepfm_jax.infer_schema.infer import infer_schema
    from deepfm_jax.schema.schema_files import write_schema

    if _SOURCE.value is None or encoding_flags.SCHEMA.value is None:
        raise UserError("--infer_schema reads --source=FILE and writes --schema=FILE; give both")
    path = pathlib.Path(encoding_flags.SCHEMA.value)
    if path.exists() and not _OVERWRITE.value:
        raise UserError(f"{path} already exists; choose another --schema, or pass --overwrite")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it first")
    inference = infer_schema(train_files(_SOURCE.value), _LABEL.value)
    write_schema(path, inference.schema)
    print(inference.describe())
    print(f"written to {path}; review it, edit it, and pass it as --schema to --dataset=tabular")


if __name__ == "__main__":
    launcher.run(main)
