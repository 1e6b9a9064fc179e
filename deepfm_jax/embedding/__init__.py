"""One table for all fields: its layout, its parameters, its lookup."""

from deepfm_jax.embedding.table import EmbeddingTable, Rows, check_ids, field_offsets

__all__ = ["EmbeddingTable", "Rows", "check_ids", "field_offsets"]
