"""Kinds of columns from outside the package: a dataclass and an entry in ``KINDS`` are all."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet
import pytest

from deepfm_jax import Categorical, Label, Schema, UserError
from deepfm_jax.cells.numbers import typed_integers
from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.coders.vocabulary import VocabularyCoder
from deepfm_jax.columns import KINDS, Field
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.features import Feature
from deepfm_jax.infer_schema.infer import infer_schema
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.profiling import describe, inspect_source
from deepfm_jax.readers.sources import read_tables, typed_table
from deepfm_jax.schema.schema_files import read_schema, write_schema

_ADDRESS = r"^(\d{1,3}\.){3}\d{1,3}$"


@dataclasses.dataclass(frozen=True)
class Address(Field):
    """A column of IPv4 addresses, each read as the network of its first ``octets`` numbers."""

    octets: int = 2
    min_count: int = 1
    max_size: int | None = None
    separate_missing: bool = False

    @property
    def coder(self):
        return VocabularyCoder

    @property
    def value_type(self):
        return pa.string()

    def type_values(self, cells):
        text = cells.cast(pa.string())
        good = pc.fill_null(pc.match_substring_regex(text, _ADDRESS), True)
        kept = pc.if_else(good, text, None)
        networks = pc.replace_substring_regex(kept, rf"(\.\d+){{{4 - self.octets}}}$", "")
        return networks, ~good.to_numpy(zero_copy_only=False), "is not an IPv4 address"

    @classmethod
    def infer(cls, name, cells):
        addresses = pa.types.is_string(cells.type) and pc.all(
            pc.match_substring_regex(cells, _ADDRESS)
        )
        return (cls(name), "addresses") if addresses and addresses.as_py() else None


class PortCoder(FieldCoder):
    """Ids 1, 2 and 3 of system, user and dynamic ports."""

    @property
    def dim(self):
        return 4

    def value_ids(self, cells):
        return np.searchsorted([1024, 49152], cells.fill_null(0).to_numpy(), side="right") + 1


@dataclasses.dataclass(frozen=True)
class Port(Field):
    """A column of ports, whose ids are not learnt from any rows."""

    is_ordered: ClassVar[bool] = True

    @property
    def coder(self):
        return PortCoder

    def type_values(self, cells):
        return *typed_integers(cells), "is not a port"


SCHEMA = Schema(
    (Label("y"), Address("from", min_count=2), Port("to"), Categorical("app", "integer"))
)
COLUMNS = {
    "y": [0, 1, 0, 1, 1, 0],
    "from": ["10.1.2.3", "10.1.9.9", "10.7.0.1", "192.168.0.1", "192.168.1.1", None],
    "to": [80, 8080, 60000, None, 443, 1024],
    "app": [1, 1, 2, 2, 3, 3],
}
# 10.1 and 192.168 are in two rows each, and equally frequent ones are in the order of their values.
IDS = [[1, 1], [1, 2], [0, 3], [2, 0], [2, 1], [0, 2]]


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
    for kind in (Address, Port):
        monkeypatch.setitem(KINDS, kind.__name__.lower(), kind)


def write(folder, name="rows.csv", columns=COLUMNS):
    path = folder / name
    cells = [["" if cell is None else str(cell) for cell in column] for column in columns.values()]
    lines = [",".join(row) for row in zip(*cells, strict=True)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


def test_a_schema_file_keeps_it(tmp_path):
    write_schema(tmp_path / "schema.json", SCHEMA)
    assert json.loads((tmp_path / "schema.json").read_text())["columns"][1] == {
        "kind": "address",
        "name": "from",
        "octets": 2,
        "min_count": 2,
        "max_size": None,
        "separate_missing": False,
    }
    assert read_schema(tmp_path / "schema.json") == SCHEMA
    with pytest.raises(UserError, match=r"column 'from' has no option 'octet'; did you mean"):
        Schema.from_dict({"columns": [{"kind": "address", "name": "from", "octet": 3}]})


@pytest.mark.parametrize("carrier", ["text", "parquet", "memory"])
def test_it_is_typed_counted_and_encoded_from_every_carrier(tmp_path, carrier):
    if carrier == "text":
        (table,) = read_tables(write(tmp_path), SCHEMA)
    elif carrier == "parquet":
        pa_parquet.write_table(pa.table(COLUMNS), tmp_path / "rows.parquet")
        (table,) = read_tables(tmp_path / "rows.parquet", SCHEMA)
    else:
        table = typed_table(COLUMNS, SCHEMA)
    assert table["from"].to_pylist() == ["10.1", "10.1", "10.7", "192.168", "192.168", None]
    encoder = fit([table], SCHEMA)
    assert encoder.features == (
        Feature(3, name="from"),
        Feature(4, name="to"),
        Feature(4, name="app"),
    )
    assert encoder.encode(table).ids[:, :2].tolist() == IDS
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert (loaded.schema, loaded.fingerprint()) == (SCHEMA, encoder.fingerprint())
    assert loaded.encode(table.drop_columns(["y"])).ids[:, :2].tolist() == IDS


def test_a_bad_cell_is_named_by_line_column_and_value(tmp_path):
    path = write(tmp_path, columns={**COLUMNS, "from": ["10.1.2.3", "10.1.x.9", *["10.0.0.1"] * 4]})
    message = r"rows.csv, line 3, column from: value '10.1.x.9' is not an IPv4 address; fix the row"
    with pytest.raises(UserError, match=message):
        list(read_tables(path, SCHEMA))


def test_it_is_inferred_prepared_reported_and_predicted(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for split in ("train", "valid", "test"):
        # A sample tells from addresses without a missing one.
        write(source, f"{split}.csv", {**COLUMNS, "from": [*COLUMNS["from"][:5], "10.7.0.2"]})
    inference = infer_schema(source / "train.csv", label="y")
    assert inference.schema.columns[1] == Address("from")
    assert "address      addresses" in inference.describe()
    options = BuildOptions(schema=SCHEMA.to_dict())
    prepare("tabular", tmp_path / "out", source=source, options=options)
    data = PreparedData("tabular", tmp_path / "out")
    (batch,) = data.batches("test", 6)
    # 10.1, 10.7 and 192.168 are in two rows each.
    expected = [[1, 1], [1, 2], [2, 3], [3, 0], [3, 1], [2, 2]]
    assert batch["ids"][:, :2].tolist() == expected
    encoder = Encoder.load(dataset_folder("tabular", tmp_path / "out"))
    (unlabelled,) = read_tables(
        write(tmp_path, columns={name: COLUMNS[name] for name in ("from", "to", "app")}),
        encoder.schema,
        labelled=False,
    )
    assert encoder.encode(unlabelled).ids[:, :2].tolist() == [*expected[:5], [0, 2]]
    report = describe(inspect_source("tabular", source=source, options=options))
    assert "from    address (min_count=2)" in report
    assert "coverage at min_count 1: 3 values 100%" in report
    assert "to      port" in report
