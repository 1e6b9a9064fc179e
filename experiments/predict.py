"""Scores raw rows: ``deepfm-jax predict --workdir=DIR --input=FILE --output=FILE``.

The output holds the same rows in the same order with a ``probability`` column at the end. It is
Parquet if its name ends in ``.parquet``, and otherwise text in the layout of the schema.
"""

from absl import flags

from . import launcher

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.", required=True)
_INPUT = flags.DEFINE_string("input", None, "Raw rows, labelled or not.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
_MAX_BAD_ROWS = flags.DEFINE_integer(
    "max_bad_rows", 0, "Bad rows to skip, count and report.", lower_bound=0
)


def main() -> None:
    """Scores the file."""
    from deepfm_jax.serving.predict import predict_file
    from deepfm_jax.serving.predictor import Predictor

    report = predict_file(
        Predictor(_WORKDIR.value), _INPUT.value, _OUTPUT.value, max_bad_rows=_MAX_BAD_ROWS.value
    )
    for message in report.first_errors:
        print(f"rejected: {message}")
    print(f"{report.kept:,} rows scored, {report.rejected:,} rejected; written to {_OUTPUT.value}")


if __name__ == "__main__":
    launcher.run(main)
