"""Labels, weights and groups: from raw rows to batches."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from deepfm_jax import Categorical, Group, Label, Schema, UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare, split_summaries
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.encoding.groups import decode_groups, encode_groups
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from tests.click_logs import SHOP, write_shop

ROWS = {"train": 5000, "valid": 300, "test": 400}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop_files")
    write_shop(folder, ROWS)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory, source):
    out = tmp_path_factory.mktemp("shop")
    prepare("tabular", out, source=source, options=BuildOptions(schema=SHOP.to_dict()))
    return out


@pytest.fixture(scope="module")
def table(source):
    return pa.concat_tables(read_tables(source / "train.csv", SHOP))


def whole(data, **arguments):
    (batch,) = data.batches("train", ROWS["train"], **arguments)
    return batch


def test_batches_have_the_label_that_is_asked_for(out, table):
    for name in ("click", "ordered"):
        data = PreparedData("tabular", out, (name,))
        assert data.labels == (name,)
        labels = whole(data)["labels"]
        np.testing.assert_array_equal(labels, table[name].to_numpy().reshape(-1, 1))
    assert PreparedData("tabular", out).labels == ("click",)
    both = PreparedData("tabular", out, ("ordered", "click"))
    assert both.labels == ("click", "ordered")
    expected = np.stack([table[name].to_numpy() for name in both.labels], axis=1)
    np.testing.assert_array_equal(whole(both)["labels"], expected)
    with pytest.raises(UserError, match=r"data.labels: 'bought' is not a label .* click, ordered"):
        PreparedData("tabular", out, ("bought",))


def test_the_mask_is_the_weight_and_padding_has_none(out, table):
    data = PreparedData("tabular", out)
    weights = table["shown"].to_numpy()
    assert set(weights) == {0, 0.5, 1, 4}
    np.testing.assert_array_equal(whole(data)["mask"], weights)
    (batch,) = data.batches("train", 5120)
    np.testing.assert_array_equal(batch["mask"], [*weights, *[0] * 120])
    shuffled = list(data.batches("train", 640, seed=1, streams=4))
    assert sum(batch["mask"].sum() for batch in shuffled) == weights.sum()


def test_groups_come_where_they_are_asked_for(out, table):
    data = PreparedData("tabular", out)
    assert "groups" not in whole(data)
    users = table["user"].to_pylist()
    groups = decode_groups(whole(data, groups=True)["groups"])
    assert (groups[[user is None for user in users]] == -1).all()
    pairs = {(user, group) for user, group in zip(users, groups.tolist(), strict=True) if user}
    assert len(pairs) == len({group for _, group in pairs}) == len(set(users) - {None}) == 30
    assert min(group for _, group in pairs) >= 0
    shuffled = data.batches("train", 512, seed=3, groups=True)
    last = list(shuffled)[-1]
    assert last["groups"].shape == (512, 2)
    assert last["groups"].dtype == np.int32


def test_a_column_may_be_a_group_and_no_feature(source, tmp_path, table):
    schema = dataclasses.replace(SHOP, columns=(Group("user"), *SHOP.columns[1:]))
    prepare("tabular", tmp_path, source=source, options=BuildOptions(schema=schema.to_dict()))
    data = PreparedData("tabular", tmp_path)
    assert data.encoder.schema.slot_names == ("item",)
    expected = encode_groups(table["user"])
    np.testing.assert_array_equal(whole(data, groups=True)["groups"], expected)


def test_groups_are_the_same_number_everywhere():
    texts = pa.chunked_array([["a", "b"], [None, "a"]])
    numbers = decode_groups(encode_groups(texts))
    assert numbers[0] == numbers[3]
    assert numbers[2] == -1
    assert len(set(numbers.tolist())) == 3
    assert (numbers >= 0).tolist() == [True, True, False, True]
    # Data sets on disk rest on these numbers.
    assert numbers[0] == 8680499596598722186
    integers = decode_groups(encode_groups(pa.chunked_array([[7, None, -1]])))
    assert integers.tolist() == [3595544800446187243, -1, 8245168133484221968]


def test_summaries_tell_the_positives_of_each_label(out, table):
    summaries = split_summaries(dataset_folder("tabular", out))
    expected = {name: int(table[name].to_numpy().sum()) for name in ("click", "ordered")}
    assert summaries["train"].positives_of == expected
    assert summaries["train"].positives == expected["click"]
    text = describe(summaries, PreparedData("tabular", out).encoder)
    rate = expected["ordered"] / ROWS["train"]
    assert f"ordered {rate:.4f}" in text


def test_a_data_set_that_is_older_than_several_labels_is_read(prepared, tmp_path):
    folder = dataset_folder("frappe", prepared)
    path = folder / "rows_train.json"
    written = json.loads(path.read_text())
    (tmp_path / "rows_train.json").write_text(
        json.dumps({key: value for key, value in written.items() if key != "positives_of"})
    )
    for split in ("valid", "test"):
        (tmp_path / f"rows_{split}.json").write_text((folder / f"rows_{split}.json").read_text())
    summaries = split_summaries(tmp_path)
    assert summaries["train"].positives == written["positives"]
    assert "positive rates" not in describe(summaries, Encoder.load(folder))


def test_each_label_must_have_both_classes(source, tmp_path):
    schema = Schema((*SHOP.columns[:-1], Label("ordered", positive="sometimes")))
    with pytest.raises(UserError, match=r"labels are 0; .* check the label column 'ordered'"):
        prepare("tabular", tmp_path, source=source, options=BuildOptions(schema=schema.to_dict()))


@pytest.mark.parametrize("column", ["shown", "ordered", "user"])
def test_a_column_that_training_needs_is_missed(source, tmp_path, column):
    header, *lines = (source / "train.csv").read_text().splitlines()
    place = header.split(",").index(column)
    for name in ROWS:
        cut = (",".join(c for i, c in enumerate(line.split(",")) if i != place)
               for line in [header, *lines])  # fmt: skip
        (tmp_path / f"{name}.csv").write_text("\n".join(cut) + "\n")
    columns = (Group("user"), *SHOP.columns[1:])
    with pytest.raises(UserError, match=f"column '{column}' is missing"):
        list(read_tables(tmp_path / "train.csv", Schema(columns)))
    if column != "user":  # To predict for, the fields are enough.
        (table,) = read_tables(tmp_path / "train.csv", Schema(columns), labelled=None)
        assert column not in table.column_names


def test_a_row_without_labels_is_encoded_without_them():
    table = pa.table({"c": ["a", "b"], "y": [0.0, 1.0]})
    encoder = fit([table], Schema((Label("y"), Label("z"), Categorical("c"))))
    assert encoder.encode(table).labels is None
    both = table.append_column("z", pa.array([1.0, 1.0]))
    assert encoder.encode(both).labels.tolist() == [[0, 1], [1, 1]]
