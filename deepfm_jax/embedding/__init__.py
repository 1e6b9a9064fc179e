"""One table for all fields: its layout, its lookup, and updates that touch only a batch's rows."""

from deepfm_jax.embedding.access import from_stored, to_stored
from deepfm_jax.embedding.local import LocalTable, RowUpdate
from deepfm_jax.embedding.row_gradients import (
    CPU_CHUNK,
    RowGradients,
    by_slot_map,
    create_scratch,
    needs_scratch,
    sum_equal_rows,
    sum_sorted,
)
from deepfm_jax.embedding.row_optimizers import ROW_OPTIMIZERS, RowOptimizer
from deepfm_jax.embedding.sharded import ShardedTable, create_table
from deepfm_jax.embedding.stripes import restripe, striped_rows, stripes_of
from deepfm_jax.embedding.table import (
    EmbeddingTable,
    Rows,
    check_ids,
    field_offsets,
    read_rows,
    table_rows,
)

__all__ = [
    "CPU_CHUNK",
    "ROW_OPTIMIZERS",
    "EmbeddingTable",
    "LocalTable",
    "RowGradients",
    "RowOptimizer",
    "RowUpdate",
    "Rows",
    "ShardedTable",
    "by_slot_map",
    "check_ids",
    "create_scratch",
    "create_table",
    "field_offsets",
    "from_stored",
    "needs_scratch",
    "read_rows",
    "restripe",
    "striped_rows",
    "stripes_of",
    "sum_equal_rows",
    "sum_sorted",
    "table_rows",
    "to_stored",
]
