"""The encoder: a schema with vocabularies fitted on training rows, which encodes raw rows."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet
from jaxtyping import Float32, Int32

from deepfm_jax.coders.coder import FieldCoder, fit_field
from deepfm_jax.encoding.counting import count_values, counted_columns
from deepfm_jax.encoding.crosses import cross_ids
from deepfm_jax.encoding.groups import encode_groups
from deepfm_jax.errors import UserError
from deepfm_jax.features import Feature, as_features
from deepfm_jax.files import write_atomically, write_json
from deepfm_jax.schema import Schema

_FORMAT = 1
_JSON, _PARQUET = "encoder.json", "encoder.parquet"


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Rows as a model reads them: the slots of each field, then one slot per cross.

    Attributes:
      ids: Ids within each field, [rows, slots]; -1 for the padding of a field of several values.
      values: 1 for categories, the transformed number for value fields, the weight of each value
        of a list and 0 for padding, [rows, slots]; None if the schema has neither numbers nor
        lists, so that every value is 1.
      dense: The numbers of dense fields, [rows, numbers]; None if the schema has none.
      labels: [rows, tasks], NaN if a row lacks one of several labels; None if the column of a label
        is absent.
      weights: [rows]; None if the schema or the rows have no weights.
      groups: [rows, 2], see ``encoding.groups``; None if the schema or the rows have no groups.
      longer: For each field of several values, the number of rows with more values than slots.
    """

    ids: Int32[np.ndarray, "rows slots"]
    values: Float32[np.ndarray, "rows slots"] | None
    dense: Float32[np.ndarray, "rows numbers"] | None
    labels: Float32[np.ndarray, "rows tasks"] | None
    weights: Float32[np.ndarray, "rows"] | None = None
    groups: Int32[np.ndarray, "rows 2"] | None = None
    longer: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes rows identically in preparation, evaluation and serving.

    Attributes:
      schema: The columns.
      coders: One per field of the schema, in its order; a field that shares a vocabulary has the
        coder of the owner.
    """

    schema: Schema
    coders: tuple[FieldCoder, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The fields and crosses as a model declares them; the rows include id 0."""
        features = []
        fields = zip(self.schema.fields, self.coders, self.schema.owners, strict=True)
        for number, (field, coder, owner) in enumerate(fields):
            features.append(
                Feature(
                    rows=coder.dim if field.slots else 0,
                    slots=field.slots,
                    shared_with=None if owner == number else owner,
                    pooling=field.pooling,
                    size=field.numbers,
                    name=field.name,
                )
            )
        crosses = (
            Feature(cross.buckets + 1, crossed=True, name=cross.name)
            for cross in self.schema.crosses
        )
        return as_features((*features, *crosses))

    def encode(self, table: pa.Table) -> Encoded:
        """Encodes typed rows (see ``readers.sources``); unseen and missing values get id 0.

        A cross has value 1, and id 0 if any of its parts has.
        """
        rows, slots = table.num_rows, len(self.schema.slot_names)
        # In column order, because columns are written one by one.
        ids = np.empty((rows, slots), dtype=np.int32, order="F")
        values = np.ones((rows, slots), dtype=np.float32) if self.schema.has_values else None
        dense: list[np.ndarray] = []
        longer: dict[str, int] = {}
        field_slots = self.schema.field_slots
        for field, coder, of_field in zip(
            self.schema.fields, self.coders, field_slots, strict=True
        ):
            column = table[field.name]
            of_slots = None if values is None else values[:, of_field]
            more = field.encode(column, coder, ids[:, of_field], of_slots)
            if more is not None:
                longer[field.name] = more
            if field.numbers:
                dense.append(field.dense_numbers(column))
        names = (field.name for field in self.schema.fields)
        slot_of = {name: of.start for name, of in zip(names, field_slots, strict=True)}
        for slot, cross in enumerate(self.schema.crosses, start=field_slots[-1].stop):
            # In the order of the fields, whatever order the cross was declared in.
            parts = sorted(slot_of[name] for name in cross.columns)
            ids[:, slot] = cross_ids(ids[:, parts], cross.buckets)
        labels = None
        names = [label.name for label in self.schema.labels]
        if set(names) <= set(table.column_names):
            columns = [table[name].to_numpy() for name in names]
            labels = np.stack(columns, axis=1).astype(np.float32)
        return Encoded(
            ids=np.ascontiguousarray(ids),
            values=values,
            dense=np.concatenate(dense, axis=1).astype(np.float32) if dense else None,
            labels=labels,
            weights=self.weights(table),
            groups=self.groups(table),
            longer=longer,
        )

    def weights(self, table: pa.Table) -> Float32[np.ndarray, "rows"] | None:
        """The weight of each typed row; None if the schema or the table has no weights."""
        name = self.schema.weight
        if name is None or name not in table.column_names:
            return None
        return table[name].to_numpy().astype(np.float32)

    def groups(self, table: pa.Table) -> Int32[np.ndarray, "rows 2"] | None:
        """The group of each typed row; None if the schema or the table has no groups."""
        name = self.schema.group
        if name is None or name not in table.column_names:
            return None
        return encode_groups(table[name])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes ``encoder.parquet``, then ``encoder.json``, each atomically."""
        content = json.loads(self._to_json())
        write_atomically(pathlib.Path(folder) / _PARQUET, self._to_parquet())
        write_json(pathlib.Path(folder) / _JSON, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Encoder":
        """Reads the files of ``save``.

        Raises:
          UserError: a file is missing, damaged, or has another version of the format.
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
            coders.append(field.coder.from_saved(field, statistics, rows))
        return cls(schema=schema, coders=tuple(coders[owner] for owner in schema.owners))

    def fingerprint(self) -> str:
        """A hash of 16 hex digits that changes with any part of the encoder."""
        digest = hashlib.sha256(self._to_json().encode())
        for coder in self._owners():
            # Not the Parquet bytes, because they change with the writer's version.
            texts, counts = coder.saved_rows()
            for part in (*_text_buffers(texts), counts.to_numpy().astype("<i8")):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
        return digest.hexdigest()[:16]

    def _to_json(self) -> str:
        return json.dumps(
            {
                "format": _FORMAT,
                "schema": self.schema.to_dict(),
                "features": features_as_data(self),
                "statistics": [coder.statistics() for coder in self.coders],
            },
            sort_keys=True,
        )

    def _owners(self) -> list[FieldCoder]:
        """The coders without the duplicates of fields that share ids."""
        owners = self.schema.owners
        return [coder for number, coder in enumerate(self.coders) if owners[number] == number]

    def _to_parquet(self) -> bytes:
        parts = []
        for coder in self._owners():
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


def _text_buffers(texts: pa.Array) -> tuple[Any, Any]:
    """Lengths and bytes of texts, independent of how the array is sliced."""
    texts = texts.cast(pa.large_string())
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if not len(texts):
        return np.zeros(0, "<i8"), memoryview(b"")
    return np.diff(ends).astype("<i8"), memoryview(content)[ends[0] : ends[-1]]


def features_as_data(encoder: Encoder) -> list[Any]:
    """Converts ``Encoder.features`` to plain data for JSON."""
    return [dataclasses.asdict(feature) for feature in encoder.features]


def fit(tables: Iterable[pa.Table], schema: Schema) -> Encoder:
    """Fits an encoder on typed *training* rows, in one pass.

    Memory holds one count per distinct value of each column. Every vocabulary, quantile and mean
    follows from these counts, so the result does not depend on how rows are chunked.

    Raises:
      UserError: there are no rows.
    """
    return fit_counts(count_values(tables, counted_columns(schema)), schema)


def fit_counts(counts: Mapping[str, pa.Table], schema: Schema) -> Encoder:
    """Fits an encoder to the counts of ``counted_columns`` (see ``count_values``)."""
    nothing = pa.table({"value": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
    coders = [
        fit_field(field.coder, field, counts.get(field.name, nothing)) for field in schema.fields
    ]
    return Encoder(schema=schema, coders=tuple(coders[owner] for owner in schema.owners))
