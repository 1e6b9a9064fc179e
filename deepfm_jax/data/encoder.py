"""The encoder: a schema and vocabularies fitted on training rows; raw rows to ids and values."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet
from jaxtyping import Float32, Int32

from deepfm_jax.data.crosses import cross_ids
from deepfm_jax.data.vocabulary import FieldCoder, fit_field, merge_counts
from deepfm_jax.errors import UserError
from deepfm_jax.files import write_atomically, write_json
from deepfm_jax.schema import Categorical, Schema

_FORMAT = 1
_JSON, _PARQUET = "encoder.json", "encoder.parquet"
# Chunks of counts merged at a time: few enough to bound memory, enough to keep merging cheap.
_MERGE_EVERY = 16


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows as a model reads them: one slot for each field, then one for each cross.

    Attributes:
      ids: Local to each slot, [rows, slots].
      values: 1 for categories, the transformed number for value fields, [rows, slots]; None where
        the schema has no value field, and so every value is 1.
      labels: [rows, tasks], None for rows without labels.
    """

    ids: Int32[np.ndarray, "rows slots"]
    values: Float32[np.ndarray, "rows slots"] | None
    labels: Float32[np.ndarray, "rows tasks"] | None


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Reads a raw row in one way everywhere: in preparation, evaluation and serving.

    Attributes:
      schema: What the columns mean.
      coders: One for each field of the schema, in its order.
    """

    schema: Schema
    coders: tuple[FieldCoder, ...]

    @property
    def field_dims(self) -> tuple[int, ...]:
        """Rows of the embedding table for each slot, id 0 included."""
        crosses = (cross.buckets + 1 for cross in self.schema.crosses)
        return (*(coder.dim for coder in self.coders), *crosses)

    def encode(self, table: pa.Table) -> Encoded:
        """Encodes typed rows (see ``data.sources``); unseen and missing values get id 0.

        A cross has id 0 where any of its parts has, and value 1.
        """
        rows, slots = table.num_rows, len(self.schema.slot_names)
        ids = np.empty((rows, slots), dtype=np.int32)
        values = np.ones((rows, slots), dtype=np.float32) if self.schema.has_values else None
        for slot, coder in enumerate(self.coders):
            column = None if values is None else values[:, slot]
            coder.encode(table[coder.field.name], ids[:, slot], column)
        slot_of = {field.name: slot for slot, field in enumerate(self.schema.fields)}
        for slot, cross in enumerate(self.schema.crosses, start=len(self.coders)):
            # In the order of the fields, whatever order the cross was declared in.
            parts = sorted(slot_of[name] for name in cross.columns)
            ids[:, slot] = cross_ids(ids[:, parts], cross.buckets)
        labels = None
        name = self.schema.label.name
        if name in table.column_names:
            labels = table[name].to_numpy().astype(np.float32).reshape(rows, 1)
        return Encoded(ids=ids, values=values, labels=labels)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``encoder.parquet``, then ``encoder.json``, each whole or not at all."""
        content = json.loads(self._to_json())
        write_atomically(pathlib.Path(folder) / _PARQUET, self._to_parquet())
        write_json(pathlib.Path(folder) / _JSON, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Encoder":
        """Reads what ``save`` wrote.

        Raises:
          UserError: a file is missing, damaged, or of another version of the format.
        """
        folder = pathlib.Path(folder)
        for name in (_JSON, _PARQUET):
            if not (folder / name).is_file():
                raise UserError(f"{folder / name}: no such file; the encoder is incomplete")
        try:
            content = json.loads((folder / _JSON).read_text())
            table = pa_parquet.read_table(folder / _PARQUET)
        except (ValueError, pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{folder}: the encoder is damaged ({error})") from None
        if content.get("format") != _FORMAT:
            raise UserError(
                f"{folder / _JSON}: format {content.get('format')}, this version reads {_FORMAT}"
            )
        schema = Schema.from_dict(content["schema"])
        coders = []
        for field, statistics in zip(schema.fields, content["statistics"], strict=True):
            rows = table.filter(pc.equal(table["column"], field.name))
            coders.append(FieldCoder.from_saved(field, statistics, rows))
        return cls(schema=schema, coders=tuple(coders))

    def fingerprint(self) -> str:
        """16 hex digits that change with any part of the encoder."""
        digest = hashlib.sha256(self._to_json().encode())
        for coder in self.coders:
            # Not the Parquet bytes: those change with the writer's version.
            for text, count in zip(*(c.to_pylist() for c in coder.saved_rows()), strict=True):
                digest.update(f"{text}\0{count}\n".encode())
        return digest.hexdigest()[:16]

    def _to_json(self) -> str:
        return json.dumps(
            {
                "format": _FORMAT,
                "schema": self.schema.to_dict(),
                "field_dims": list(self.field_dims),
                "statistics": [coder.statistics() for coder in self.coders],
            },
            sort_keys=True,
        )

    def _to_parquet(self) -> bytes:
        parts = []
        for coder in self.coders:
            texts, counts = coder.saved_rows()
            parts.append(
                pa.table(
                    {
                        "column": pa.array([coder.field.name] * len(texts), pa.string()),
                        "value": texts,
                        "count": counts,
                        "id": pa.array(np.arange(len(texts)) + coder.first_id, pa.int64()),
                    }
                )
            )
        buffer = io.BytesIO()
        pa_parquet.write_table(pa.concat_tables(parts), buffer)
        return buffer.getvalue()


def fit(tables: Iterable[pa.Table], schema: Schema) -> Encoder:
    """Fits an encoder on typed *training* rows, in one pass.

    What is held is one count for each distinct value of each column; every vocabulary, quantile
    and mean follows from those, and so the result does not depend on how rows are chunked.

    Raises:
      UserError: no rows.
    """
    counts = count_values(tables, counted_columns(schema))
    return fit_counts(counts, schema)


def counted_columns(schema: Schema) -> tuple[str, ...]:
    """The fields whose coding follows from counts of their training values."""
    return tuple(
        field.name
        for field in schema.fields
        if not isinstance(field, Categorical) or field.has_vocabulary
    )


def fit_counts(counts: Mapping[str, pa.Table], schema: Schema) -> Encoder:
    """Fits an encoder on the counts of ``counted_columns``, as ``count_values`` gives them."""
    nothing = pa.table({"value": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
    coders = tuple(fit_field(field, counts.get(field.name, nothing)) for field in schema.fields)
    return Encoder(schema=schema, coders=coders)


def count_values(tables: Iterable[pa.Table], names: Sequence[str]) -> dict[str, pa.Table]:
    """How often each value of each column stands in the rows; columns ``value`` and ``count``.

    Raises:
      UserError: no rows.
    """
    counter, seen = ValueCounter(names), False
    for table in tables:
        seen = True
        counter.add(table)
    check_seen(seen)
    return counter.counts()


def check_seen(seen: bool) -> None:
    """Whether there is any row to fit an encoder on.

    Raises:
      UserError: there is none.
    """
    if not seen:
        raise UserError("the training split has no rows to fit an encoder on")


class ValueCounter:
    """Counts how often each value of some columns stands in the rows that are added."""

    def __init__(self, names: Sequence[str]):
        self._counts: dict[str, list[pa.Table]] = {name: [] for name in names}

    def add(self, table: pa.Table) -> None:
        """Counts the rows of a table."""
        for name, parts in self._counts.items():
            found = pc.value_counts(table[name].combine_chunks())
            parts.append(pa.table(found.flatten(), names=["value", "count"]))
            if len(parts) >= _MERGE_EVERY:
                parts[:] = [merge_counts(parts)]

    @property
    def size(self) -> int:
        """Counts held, a value may have several of them."""
        return sum(part.num_rows for parts in self._counts.values() for part in parts)

    def counts(self) -> dict[str, pa.Table]:
        """Of each column that any rows were added of; columns ``value`` and ``count``."""
        return {name: merge_counts(parts) for name, parts in self._counts.items() if parts}
