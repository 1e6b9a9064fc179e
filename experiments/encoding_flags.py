"""Flags of ``prepare`` that control how a data set is encoded."""

from absl import flags

SCHEMA = flags.DEFINE_string("schema", None, "Schema file of tabular or libsvm (JSON).")
_TIME_COLUMN = flags.DEFINE_string(
    "time_column", None, "Split the rows of a file by the times in this column, not by a draw."
)
_MIN_COUNT = flags.DEFINE_integer(
    "min_count", None, "Values in fewer training rows share id 0.", lower_bound=1
)
_MAX_SIZE = flags.DEFINE_integer(
    "max_size", None, "Give ids to so many values of a column, the most frequent.", lower_bound=1
)
_HASH_BUCKETS = flags.DEFINE_integer(
    "hash_buckets",
    None,
    "Hash the values of every categorical column into so many ids, without vocabularies.",
    lower_bound=1,
)
_NUMERIC = flags.DEFINE_enum(
    "numeric",
    None,
    ["log", "log2_floor", "standardise", "quantile"],
    "Transform of every numeric column.",
)
_BUCKETS = flags.DEFINE_integer("buckets", None, "Quantile buckets.", lower_bound=2)
_HISTORY_LENGTH = flags.DEFINE_integer(
    "history_length", None, "Newest values to keep of every history column.", lower_bound=1
)
_SEPARATE_MISSING = flags.DEFINE_bool(
    "separate_missing", None, "Give missing values an id of their own."
)
_ROWS = flags.DEFINE_integer("rows", None, "Training rows of synthetic.", lower_bound=100)
_MAX_BAD_ROWS = flags.DEFINE_integer(
    "max_bad_rows", 0, "Bad rows to skip, count and report in each split.", lower_bound=0
)
_CROSS = flags.DEFINE_multi_string(
    "cross", [], "Columns of a cross-product feature, such as C1,C2; may be repeated."
)
_CROSS_BUCKETS = flags.DEFINE_integer(
    "cross_buckets", 100_000, "Hash buckets of each cross.", lower_bound=1
)
EXTEND_FROM = flags.DEFINE_string(
    "extend_from", None, "Folder of an encoder that keeps its ids; new values get ids after them."
)


def build_options(schema=None):
    """Builds the options from the flags; ``schema`` replaces ``--schema``."""
    from deepfm_jax.datasets.options import BuildOptions
    from deepfm_jax.schema.schema_files import read_schema

    if schema is None and SCHEMA.value:
        schema = read_schema(SCHEMA.value)
    return BuildOptions(
        min_count=_MIN_COUNT.value,
        max_size=_MAX_SIZE.value,
        hash_buckets=_HASH_BUCKETS.value,
        numeric=_NUMERIC.value,  # pyright: ignore[reportArgumentType]
        buckets=_BUCKETS.value,
        history_length=_HISTORY_LENGTH.value,
        separate_missing=_SEPARATE_MISSING.value,
        max_bad_rows=_MAX_BAD_ROWS.value,
        rows=_ROWS.value,
        crosses=tuple(tuple(columns.split(",")) for columns in _CROSS.value),
        cross_buckets=_CROSS_BUCKETS.value,
        time_column=_TIME_COLUMN.value,
        schema=None if schema is None else schema.to_dict(),
        extend_from=EXTEND_FROM.value,
    )
