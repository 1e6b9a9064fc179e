"""One table for all fields: its layout, lookup, and updates that touch only a batch's rows."""

from deepfm_jax.embedding.gather_scatter import from_stored, to_stored
from deepfm_jax.embedding.layout import TableLayout, kind_of, table_layout
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
from deepfm_jax.embedding.sharded import ShardedTable
from deepfm_jax.embedding.stripes import restripe, striped_rows, stripes_of
from deepfm_jax.embedding.table import EmbeddingTable, Rows, check_ids, read_rows
from deepfm_jax.embedding.tables import TableAccess, create_scratches

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
    "TableAccess",
    "TableLayout",
    "by_slot_map",
    "check_ids",
    "create_scratch",
    "create_scratches",
    "from_stored",
    "kind_of",
    "needs_scratch",
    "read_rows",
    "restripe",
    "striped_rows",
    "stripes_of",
    "sum_equal_rows",
    "sum_sorted",
    "table_layout",
    "to_stored",
]
